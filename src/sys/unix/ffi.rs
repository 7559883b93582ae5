//! Our part of `<sys/socket.h>`, `<netinet/in.h>`, `<fcntl.h>` and `<errno.h>`, with the names used there.
#![allow(non_camel_case_types, dead_code)] // no system needs all of it

use std::ffi::{c_char, c_int, c_void};

pub type socklen_t = u32;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub type sa_family_t = u16;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub type sa_family_t = u8;

/// An IPv4 address and port, both in network byte order.
/// <https://man7.org/linux/man-pages/man7/ip.7.html>
#[repr(C)]
pub struct sockaddr_in {
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub sin_len: u8,
    pub sin_family: sa_family_t,
    pub sin_port: u16,
    pub sin_addr: in_addr,
    pub sin_zero: [c_char; 8],
}

#[repr(C)]
pub struct in_addr {
    pub s_addr: u32,
}

/// An IPv6 address and port in network byte order, with a flow label and an interface as `std` has them.
/// <https://man7.org/linux/man-pages/man7/ipv6.7.html>
#[repr(C)]
pub struct sockaddr_in6 {
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub sin6_len: u8,
    pub sin6_family: sa_family_t,
    pub sin6_port: u16,
    pub sin6_flowinfo: u32,
    pub sin6_addr: in6_addr,
    pub sin6_scope_id: u32,
}

#[repr(C, align(4))]
pub struct in6_addr {
    pub s6_addr: [u8; 16],
}

pub const AF_INET: c_int = 2;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const AF_INET6: c_int = 10;
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub const AF_INET6: c_int = 30;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
pub const AF_INET6: c_int = 28;
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
pub const AF_INET6: c_int = 24;

// These differ between systems, and on Linux between processors.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod numbers {
    use std::ffi::c_int;

    const IS_MIPS: bool = cfg!(any(
        target_arch = "mips",
        target_arch = "mips32r6",
        target_arch = "mips64",
        target_arch = "mips64r6"
    ));
    const IS_SPARC: bool = cfg!(any(target_arch = "sparc", target_arch = "sparc64"));

    pub const SOCK_STREAM: c_int = if IS_MIPS { 2 } else { 1 };
    pub const SOCK_CLOEXEC: c_int = if IS_SPARC { 0x400000 } else { 0o2000000 };
    pub const SOCK_NONBLOCK: c_int = match (IS_MIPS, IS_SPARC) {
        (true, _) => 0x80,
        (_, true) => 0x4000,
        _ => 0o4000,
    };
    pub const EINPROGRESS: c_int = match (IS_MIPS, IS_SPARC) {
        (true, _) => 150,
        (_, true) => 36,
        _ => 115,
    };
}
#[cfg(any(target_os = "freebsd", target_os = "dragonfly", target_os = "netbsd"))]
mod numbers {
    use std::ffi::c_int;

    pub const SOCK_STREAM: c_int = 1;
    pub const SOCK_CLOEXEC: c_int = 0x1000_0000;
    pub const SOCK_NONBLOCK: c_int = 0x2000_0000;
    pub const EINPROGRESS: c_int = 36;
}
#[cfg(target_os = "openbsd")]
mod numbers {
    use std::ffi::c_int;

    pub const SOCK_STREAM: c_int = 1;
    pub const SOCK_CLOEXEC: c_int = 0x8000;
    pub const SOCK_NONBLOCK: c_int = 0x4000;
    pub const EINPROGRESS: c_int = 36;
}
/// Apple's `socket` cannot set close-on-exec and non-blocking mode when it makes a socket.
#[cfg(any(target_os = "macos", target_os = "ios"))]
mod numbers {
    use std::ffi::c_int;

    pub const SOCK_STREAM: c_int = 1;
    pub const EINPROGRESS: c_int = 36;
    pub const SOL_SOCKET: c_int = 0xffff;
    /// With this option, a write to a broken connection is an error instead of a signal.
    pub const SO_NOSIGPIPE: c_int = 0x1022;
}
pub use numbers::*;

pub const F_SETFD: c_int = 2;
pub const FD_CLOEXEC: c_int = 1;

unsafe extern "C" {
    /// Makes a socket. <https://man7.org/linux/man-pages/man2/socket.2.html>
    #[cfg_attr(target_os = "netbsd", link_name = "__socket30")]
    pub fn socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int;

    /// Starts a connection; on a non-blocking socket, does not wait for it. `addr` is a `sockaddr_in` or
    /// `sockaddr_in6`.
    /// <https://man7.org/linux/man-pages/man2/connect.2.html>
    pub fn connect(sockfd: c_int, addr: *const c_void, addrlen: socklen_t) -> c_int;

    /// Sets a flag of a descriptor. <https://man.freebsd.org/cgi/man.cgi?query=fcntl&sektion=2>
    pub fn fcntl(fd: c_int, cmd: c_int, ...) -> c_int;

    /// Sets an option of a socket.
    /// <https://developer.apple.com/library/archive/documentation/System/Conceptual/ManPages_iPhoneOS/man2/setsockopt.2.html>
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    pub fn setsockopt(
        socket: c_int,
        level: c_int,
        option_name: c_int,
        option_value: *const c_void,
        option_len: socklen_t,
    ) -> c_int;
}
