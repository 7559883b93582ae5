//! Our part of `<sys/event.h>` and `<time.h>`, with the names used there.
#![allow(non_camel_case_types)]

use std::ffi::{c_int, c_long, c_uint, c_void};

/// As an argument, what to watch; as a result, what happened.
/// <https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2>
///
/// Apple packs the struct, which moves no field.
#[derive(Clone, Copy)]
#[cfg_attr(any(target_os = "macos", target_os = "ios"), repr(C, packed(4)))]
#[cfg_attr(not(any(target_os = "macos", target_os = "ios")), repr(C))]
pub struct kevent {
    /// A descriptor, or the number of an event that we trigger ourselves.
    pub ident: usize,
    /// What to watch for.
    pub filter: filter_t,
    pub flags: flags_t,
    pub fflags: c_uint,
    pub data: data_t,
    /// The kernel returns it unchanged.
    pub udata: *mut c_void,
    /// On FreeBSD since version 12. (Newer NetBSDs have it too, but not in the struct of `__kevent50`, which we call.)
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

/// An event that we trigger ourselves. (NetBSD has had this filter since version 10 and OpenBSD since 7.8; minimio does
/// not use it there.)
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub const EVFILT_USER: filter_t = -10;
#[cfg(any(target_os = "freebsd", minimio_kqueue))]
pub const EVFILT_USER: filter_t = -11;
#[cfg(target_os = "dragonfly")]
pub const EVFILT_USER: filter_t = -9;

pub const EV_ADD: flags_t = 0x0001;
pub const EV_ONESHOT: flags_t = 0x0010;
pub const EV_RECEIPT: flags_t = 0x0040;
/// As a result: the change failed, or this event is a receipt.
pub const EV_ERROR: flags_t = 0x4000;
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
pub const NOTE_TRIGGER: c_uint = 0x0100_0000;

/// A duration. <https://man.freebsd.org/cgi/man.cgi?query=clock_gettime&sektion=2>
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

    /// Edits what the queue watches, sleeps until an event occurs, or both.
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
