//! `ffi.rs`, with a line for each call: what the backends call with the feature `trace`.

#[path = "ffi.rs"]
mod real;

use crate::sys::trace::{Call, Fd, Flags, Name, socket_addr};
pub use real::*;
use std::ffi::{c_int, c_void};

const FAMILIES: &[(i64, &str)] = &[(AF_INET as i64, "AF_INET"), (AF_INET6 as i64, "AF_INET6")];

const KINDS: &[(u32, &str)] = &[
    (SOCK_STREAM as u32, "SOCK_STREAM"),
    #[cfg(not(any(target_os = "macos", target_os = "ios")))]
    (SOCK_CLOEXEC as u32, "SOCK_CLOEXEC"),
    #[cfg(not(any(target_os = "macos", target_os = "ios")))]
    (SOCK_NONBLOCK as u32, "SOCK_NONBLOCK"),
];

pub unsafe fn socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int {
    // SAFETY: as the caller says, here and below.
    let call = Call::make(-1, || unsafe { real::socket(domain, r#type, protocol) });
    let (family, kind) = (Name(domain.into(), FAMILIES), Flags(r#type as u32, KINDS));
    let made = Fd(call.result);
    call.tell(format_args!("socket({family}, {kind}, {protocol})"), made)
}

pub unsafe fn connect(sockfd: c_int, addr: *const c_void, addrlen: socklen_t) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe { real::connect(sockfd, addr, addrlen) });
    // SAFETY: the caller passes an address of one of our two kinds, and its length.
    let addr = unsafe { socket_addr(addr, addrlen as usize) };
    let result = call.result;
    call.tell(format_args!("connect(fd {sockfd}, {addr})"), result)
}

/// A number is what the one command that we use takes.
#[allow(dead_code)] // see `ffi.rs`
pub unsafe fn fcntl(fd: c_int, cmd: c_int, flag: c_int) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe { real::fcntl(fd, cmd, flag) });
    let (cmd, flag, result) = (
        Name(cmd.into(), &[(F_SETFD as i64, "F_SETFD")]),
        Name(flag.into(), &[(FD_CLOEXEC as i64, "FD_CLOEXEC")]),
        call.result,
    );
    call.tell(format_args!("fcntl(fd {fd}, {cmd}, {flag})"), result)
}

#[cfg(any(target_os = "macos", target_os = "ios"))]
pub unsafe fn setsockopt(
    socket: c_int,
    level: c_int,
    option_name: c_int,
    option_value: *const c_void,
    option_len: socklen_t,
) -> c_int {
    // SAFETY: as the caller says.
    let call = Call::make(-1, || unsafe {
        real::setsockopt(socket, level, option_name, option_value, option_len)
    });
    let (level, option, result) = (
        Name(level.into(), &[(SOL_SOCKET as i64, "SOL_SOCKET")]),
        Name(option_name.into(), &[(SO_NOSIGPIPE as i64, "SO_NOSIGPIPE")]),
        call.result,
    );
    // SAFETY: every option that we set is a number.
    let value = unsafe { *option_value.cast::<c_int>() };
    call.tell(
        format_args!("setsockopt(fd {socket}, {level}, {option}, {value})"),
        result,
    )
}
