//! `ffi.rs`, with a line for each call: what the backend calls if there is the feature `trace`.

#[path = "ffi.rs"]
mod real;

use crate::sys::trace::{Call, Events, Fd, Flags, Name, Timeout, tell_close};
pub use real::*;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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

/// Whether a source has the token of the waker.
static IS_WAKER_AMBIGUOUS: AtomicBool = AtomicBool::new(false);

/// Whose entry it is.
struct Whose<'a>(&'a epoll_event);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoll_event { events, data } = *self.0;
        match (events & EPOLLRDNORM != 0, data == super::WAKER) {
            (true, _) => f.write_str("writers"),
            // On the way in, only entries of sources are one-shot.
            (_, true) if events & EPOLLONESHOT == 0 => match IS_WAKER_AMBIGUOUS.load(Relaxed) {
                true => write!(f, "waker or token {data}"),
                false => f.write_str("waker"),
            },
            _ => write!(f, "token {data}"),
        }
    }
}

impl fmt::Display for epoll_event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Flags(self.events, EVENTS), Whose(self))
    }
}

impl Drop for super::Selector {
    fn drop(&mut self) {
        // In the order in which the fields are dropped, each of which is told before it is closed.
        tell_close(&self.readers);
        tell_close(&self.writers);
        tell_close(&self.waker);
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
    if op != EPOLL_CTL_DEL {
        // SAFETY: the caller passes an event.
        let epoll_event { events, data } = unsafe { *event };
        let is_ambiguous = events & EPOLLONESHOT != 0 && data == super::WAKER;
        IS_WAKER_AMBIGUOUS.fetch_or(is_ambiguous, Relaxed);
    }
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
    let event = unsafe { *event };
    let (events, whose) = (Flags(event.events, EVENTS), Whose(&event));
    call.tell(
        format_args!("epoll_ctl(fd {epfd}, {op_name}, fd {fd}, {events}, {whose})"),
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
    let call = Call::wait(-1, || unsafe {
        real::epoll_wait(epfd, events, maxevents, timeout)
    });
    // SAFETY: so many the kernel has written.
    let came = unsafe { slice::from_raw_parts(events, call.result.max(0) as usize) };
    let timeout = Timeout(timeout.into());
    call.tell(
        format_args!("epoll_wait(fd {epfd}, capacity {maxevents}, {timeout})"),
        Events(came),
    )
}
