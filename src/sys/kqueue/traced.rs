//! `ffi.rs`, with a line for each call: what the backend calls if there is the feature `trace`.
#![allow(clippy::unnecessary_cast, clippy::useless_conversion)] // widths differ; see `ffi.rs`

#[path = "ffi.rs"]
mod real;

use crate::sys::trace::{Call, Error, Events, Fd, Flags, Timeout, tell_close};
pub use real::*;
use std::ffi::{c_int, c_uint};
use std::{fmt, slice};

/// A flag that comes back unasked. Its number is the same on all systems.
const EV_EOF: u32 = 0x8000;

const FLAGS: &[(u32, &str)] = &[
    (EV_ADD as u32, "EV_ADD"),
    (EV_ONESHOT as u32, "EV_ONESHOT"),
    (EV_RECEIPT as u32, "EV_RECEIPT"),
    (EV_ERROR as u32, "EV_ERROR"),
    (EV_EOF, "EV_EOF"),
];

/// What a knote is about: a descriptor, or an event of our own.
struct What<'a>(&'a kevent);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.filter, self.0.ident) {
            (EVFILT_READ, fd) => write!(f, "EVFILT_READ fd {fd}"),
            (EVFILT_WRITE, fd) => write!(f, "EVFILT_WRITE fd {fd}"),
            #[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
            (EVFILT_USER, ident) => write!(f, "EVFILT_USER {ident}"),
            (filter, ident) => write!(f, "filter {filter} {ident}"),
        }
    }
}

/// Whose knote it is.
struct Whose<'a>(&'a kevent);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each knote of a source is one-shot, and the kernel keeps this flag.
        match self.0.flags & EV_ONESHOT {
            0 => f.write_str("waker"),
            _ => write!(f, "token {}", self.0.udata.addr()),
        }
    }
}

impl Drop for super::Selector {
    fn drop(&mut self) {
        tell_close(&self.kqueue);
    }
}

/// Flags of the filter, which we use only to trigger our own event.
struct FilterFlags(c_uint);

impl fmt::Display for FilterFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            #[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
            NOTE_TRIGGER => f.write_str(", NOTE_TRIGGER"),
            fflags => write!(f, ", {fflags:#x}"),
        }
    }
}

/// What happened; or a receipt, which is an error too, if only the error 0.
impl fmt::Display for kevent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (flags, data, whose) = (u32::from(self.flags), self.data, Whose(self));
        match (self.flags & EV_ERROR != 0, data) {
            (true, 0) => return f.write_str("EV_ERROR 0"),
            (true, _) => return write!(f, "EV_ERROR {}", Error(data as i32)),
            _ => What(self).fmt(f)?,
        }
        if flags != 0 {
            write!(f, " {}", Flags(flags, FLAGS))?;
        }
        match self.filter {
            EVFILT_READ | EVFILT_WRITE => write!(f, " {data} bytes {whose}"),
            _ => write!(f, " {whose}"),
        }
    }
}

pub unsafe fn kqueue() -> c_int {
    // SAFETY: as the caller says, here and below.
    let call = Call::make(-1, || unsafe { real::kqueue() });
    let made = Fd(call.result);
    call.tell(format_args!("kqueue()"), made)
}

pub unsafe fn kevent(
    kq: c_int,
    changelist: *const kevent,
    nchanges: count_t,
    eventlist: *mut kevent,
    nevents: count_t,
    timeout: *const timespec,
) -> c_int {
    // Before the call, which may write its answer to the same place.
    // SAFETY: the caller passes null, or at least one change.
    let change = unsafe { changelist.as_ref() }.copied();
    let make = match change {
        Some(_) => Call::make,
        None => Call::wait,
    };
    // SAFETY: as the caller says.
    let call = make(-1, || unsafe {
        real::kevent(kq, changelist, nchanges, eventlist, nevents, timeout)
    });
    // SAFETY: so many the kernel has written.
    let came = Events(unsafe { slice::from_raw_parts(eventlist, call.result.max(0) as usize) });
    let Some(change) = change else {
        // SAFETY: the caller passes null, or a span of time.
        let timeout = Timeout(unsafe { timeout.as_ref() }.map_or(-1, milliseconds));
        return call.tell(
            format_args!("kevent(fd {kq}, capacity {nevents}, {timeout})"),
            came,
        );
    };
    let flags = Flags(change.flags.into(), FLAGS);
    let (what, fflags, whose) = (What(&change), FilterFlags(change.fflags), Whose(&change));
    call.tell(
        format_args!("kevent(fd {kq}, {what}, {flags}{fflags}, {whose})"),
        came,
    )
}

fn milliseconds(timeout: &timespec) -> i64 {
    timeout.tv_sec as i64 * 1000 + timeout.tv_nsec as i64 / 1_000_000
}
