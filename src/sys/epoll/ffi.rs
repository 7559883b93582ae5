//! Our part of `<sys/epoll.h>` and `<sys/eventfd.h>`, with the names used there.
#![allow(non_camel_case_types)]

use std::ffi::{c_int, c_uint};

/// As an argument, what to watch a descriptor for; as a result, what happened.
/// <https://man7.org/linux/man-pages/man3/epoll_event.3type.html>
///
/// The kernel packs it on x86-64, so that 32- and 64-bit programs share one layout, and on no other
/// architecture. (On 32-bit x86 a `u64` is aligned to 4 bytes, and packing changes nothing.)
#[derive(Clone, Copy)] // [packed]
#[cfg_attr(any(target_arch = "x86_64", target_arch = "x86"), repr(C, packed))]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "x86")), repr(C))]
pub struct epoll_event {
    pub events: u32,
    /// In C the union `epoll_data`, of which we only use the member `u64`, which the kernel returns unchanged.
    pub data: u64,
}

/// `O_CLOEXEC`: the descriptor is not inherited by programs that we start. On SPARC the number is different.
pub const EPOLL_CLOEXEC: c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
    0x400000
} else {
    0o2000000
};

pub const EPOLL_CTL_ADD: c_int = 1;
pub const EPOLL_CTL_DEL: c_int = 2;
pub const EPOLL_CTL_MOD: c_int = 3;

pub const EPOLLIN: u32 = 0x001;
pub const EPOLLOUT: u32 = 0x004;
pub const EPOLLRDNORM: u32 = 0x040;
pub const EPOLLONESHOT: u32 = 1 << 30;

pub const EFD_CLOEXEC: c_int = EPOLL_CLOEXEC;

unsafe extern "C" {
    /// Makes the queue. <https://man7.org/linux/man-pages/man2/epoll_create1.2.html>
    pub fn epoll_create1(flags: c_int) -> c_int;

    /// Edits what the queue watches. <https://man7.org/linux/man-pages/man2/epoll_ctl.2.html>
    pub fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;

    /// Sleeps until an event occurs on a watched descriptor. <https://man7.org/linux/man-pages/man2/epoll_wait.2.html>
    pub fn epoll_wait(
        epfd: c_int,
        events: *mut epoll_event,
        maxevents: c_int,
        timeout: c_int,
    ) -> c_int;

    /// Makes a descriptor whose only purpose is to become readable, which wakes `epoll_wait`.
    /// <https://man7.org/linux/man-pages/man2/eventfd.2.html>
    pub fn eventfd(initval: c_uint, flags: c_int) -> c_int;
}
