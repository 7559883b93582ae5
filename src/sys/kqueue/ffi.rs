//! What we need of `<sys/event.h>` and `<time.h>`, under the names it has there.
#![allow(non_camel_case_types)]

use std::ffi::{c_int, c_long, c_uint, c_void};

/// On the way in, what to watch; on the way out, what happened.
/// <https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2>
///
/// Apple packs it, but no field moves by that.
#[derive(Clone, Copy)]
#[cfg_attr(any(target_os = "macos", target_os = "ios"), repr(C, packed(4)))]
#[cfg_attr(not(any(target_os = "macos", target_os = "ios")), repr(C))]
pub struct kevent {
    /// What it is about: a descriptor, or the number of an event of our own.
    pub ident: usize,
    /// What to watch it for.
    pub filter: filter_t,
    pub flags: flags_t,
    pub fflags: c_uint,
    pub data: data_t,
    /// Comes back as it was given.
    pub udata: *mut c_void,
    /// Since FreeBSD 12, and only there.
    #[cfg(target_os = "freebsd")]
    pub ext: [u64; 4],
}

// The widths in which the systems differ. Their headers have no names for these types.
#[cfg(target_os = "netbsd")]
mod widths {
    pub type filter_t = u32;
    pub type flags_t = u32;
    pub type data_t = i64;
    pub type count_t = usize;
}
#[cfg(not(target_os = "netbsd"))]
mod widths {
    pub type filter_t = i16;
    pub type flags_t = u16;
    #[cfg(any(target_os = "freebsd", target_os = "openbsd"))]
    pub type data_t = i64;
    #[cfg(not(any(target_os = "freebsd", target_os = "openbsd")))]
    pub type data_t = isize;
    pub type count_t = std::ffi::c_int;
}
pub use widths::*;

#[cfg(target_os = "netbsd")]
pub const EVFILT_READ: filter_t = 0;
#[cfg(target_os = "netbsd")]
pub const EVFILT_WRITE: filter_t = 1;
#[cfg(not(target_os = "netbsd"))]
pub const EVFILT_READ: filter_t = -1;
#[cfg(not(target_os = "netbsd"))]
pub const EVFILT_WRITE: filter_t = -2;

/// An event of our own. (NetBSD has these since version 10, OpenBSD since 7.8. We do without them there.)
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub const EVFILT_USER: filter_t = -10;
#[cfg(any(target_os = "freebsd", minimio_kqueue))]
pub const EVFILT_USER: filter_t = -11;
#[cfg(target_os = "dragonfly")]
pub const EVFILT_USER: filter_t = -9;

pub const EV_ADD: flags_t = 0x0001;
pub const EV_ONESHOT: flags_t = 0x0010;
pub const EV_RECEIPT: flags_t = 0x0040;
/// On the way out: the change failed, or this is a receipt.
pub const EV_ERROR: flags_t = 0x4000;
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
pub const NOTE_TRIGGER: c_uint = 0x0100_0000;

/// A span of time. <https://man.freebsd.org/cgi/man.cgi?query=clock_gettime&sektion=2>
#[repr(C)]
pub struct timespec {
    pub tv_sec: time_t,
    pub tv_nsec: c_long,
}

/// Four bytes on FreeBSD's 32-bit x86 and on Apple's 32-bit systems.
#[cfg(any(
    all(target_os = "freebsd", target_arch = "x86"),
    all(target_vendor = "apple", target_pointer_width = "32")
))]
pub type time_t = i32;
#[cfg(not(any(
    all(target_os = "freebsd", target_arch = "x86"),
    all(target_vendor = "apple", target_pointer_width = "32")
)))]
pub type time_t = i64;

#[cfg_attr(minimio_kqueue, link(name = "kqueue"))]
unsafe extern "C" {
    /// Makes the queue. <https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2>
    pub fn kqueue() -> c_int;

    /// Edits what the queue watches, or sleeps until something that is watched happens, or both.
    /// <https://man.freebsd.org/cgi/man.cgi?query=kevent&sektion=2>
    #[cfg_attr(target_os = "netbsd", link_name = "__kevent50")]
    pub fn kevent(
        kq: c_int,
        changelist: *const kevent,
        nchanges: count_t,
        eventlist: *mut kevent,
        nevents: count_t,
        timeout: *const timespec,
    ) -> c_int;
}
