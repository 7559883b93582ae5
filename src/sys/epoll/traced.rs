//! `ffi.rs`, with a line for each call: what the backend calls if there is the feature `trace`.

#[path = "ffi.rs"]
mod real;

use crate::sys::trace::{Call, Events, Fd, Flags, Name, Timeout};
pub use real::*;
use std::ffi::{c_int, c_uint};
use std::{fmt, slice};

const OPERATIONS: &[(i64, &str)] = &[
    (EPOLL_CTL_ADD as i64, "EPOLL_CTL_ADD"),
    (EPOLL_CTL_DEL as i64, "EPOLL_CTL_DEL"),
    (EPOLL_CTL_MOD as i64, "EPOLL_CTL_MOD"),
];

/// Those that we ask for, and those that come unasked.
const EVENTS: &[(u32, &str)] = &[
    (EPOLLIN, "EPOLLIN"),
    (EPOLLOUT, "EPOLLOUT"),
    (0x008, "EPOLLERR"),
    (0x010, "EPOLLHUP"),
    (EPOLLRDNORM, "EPOLLRDNORM"),
    (EPOLLONESHOT, "EPOLLONESHOT"),
];

impl fmt::Display for epoll_event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoll_event { events, data } = *self;
        write!(f, "{} token {data}", Flags(events, EVENTS))
    }
}

pub unsafe fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: as the caller says, here and below.
    let call = Call::make(-1, || unsafe { real::epoll_create1(flags) });
    let (flags, made) = (
        Flags(flags as u32, &[(EPOLL_CLOEXEC as u32, "EPOLL_CLOEXEC")]),
        Fd(call.result),
    );
    call.tell(format_args!("epoll_create1({flags})"), made)
}

pub unsafe fn eventfd(initval: c_uint, flags: c_int) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe { real::eventfd(initval, flags) });
    let (flags, made) = (
        Flags(flags as u32, &[(EFD_CLOEXEC as u32, "EFD_CLOEXEC")]),
        Fd(call.result),
    );
    call.tell(format_args!("eventfd({initval}, {flags})"), made)
}

pub unsafe fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe { real::epoll_ctl(epfd, op, fd, event) });
    let (op_name, result) = (Name(op.into(), OPERATIONS), call.result);
    if op == EPOLL_CTL_DEL {
        // The kernel does not look at the event.
        return call.tell(
            format_args!("epoll_ctl(fd {epfd}, {op_name}, fd {fd})"),
            result,
        );
    }
    // SAFETY: the caller passes an event, which the kernel has read, too.
    let epoll_event { events, data } = unsafe { *event };
    let events = Flags(events, EVENTS);
    call.tell(
        format_args!("epoll_ctl(fd {epfd}, {op_name}, fd {fd}, {events}, token {data})"),
        result,
    )
}

pub unsafe fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe {
        real::epoll_wait(epfd, events, maxevents, timeout)
    });
    // SAFETY: so many the kernel has written.
    let came = unsafe { slice::from_raw_parts(events, call.result.max(0) as usize) };
    let timeout = Timeout(timeout.into());
    call.tell_wait(
        format_args!("epoll_wait(fd {epfd}, capacity {maxevents}, {timeout})"),
        Events(came),
    )
}
