//! What the harness itself calls of the system. It sends by `writev` and receives by `readv`, which no contender calls, so
//! that these can be left out when system calls are counted. It does not use `Instant`, because further calls of that would
//! keep the compiler from inlining those of the library that is measured.

use std::ffi::{c_int, c_long, c_void};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

#[repr(C)]
struct iovec {
    iov_base: *const u8,
    iov_len: usize,
}

unsafe extern "C" {
    fn clock_gettime(clock: c_int, time: *mut [c_long; 2]) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
    fn writev(fd: c_int, iov: *const iovec, count: c_int) -> isize;
}

const CLOCK_MONOTONIC: c_int = 1;
const SOL_SOCKET: c_int = 1;
const SO_SNDBUF: c_int = 7;
const SO_RCVBUF: c_int = 8;
const SO_LINGER: c_int = 13;

/// Nanoseconds.
pub fn now() -> u64 {
    let mut time = [0; 2];
    // SAFETY: a `timespec` is two numbers of this type.
    let result = unsafe { clock_gettime(CLOCK_MONOTONIC, &mut time) };
    assert_eq!(result, 0, "clock_gettime");
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

/// Sends one byte.
pub fn send(far: &TcpStream) {
    let byte = iovec {
        iov_base: &7,
        iov_len: 1,
    };
    // SAFETY: the one buffer is a byte that lives as long as the program.
    let sent = unsafe { writev(far.as_raw_fd(), &byte, 1) };
    assert_eq!(sent, 1, "writev");
}

/// Otherwise thousands of sockets would stay in TIME_WAIT when the next program starts.
pub fn reset_on_close(stream: &impl AsRawFd) {
    let linger: [c_int; 2] = [1, 0]; // a `linger` is two numbers of this type
    set_option(stream, SO_LINGER, linger);
}

/// Otherwise the kernel would choose, and change them while data flows.
pub fn fix_buffers(stream: &impl AsRawFd, bytes: c_int) {
    set_option(stream, SO_SNDBUF, bytes);
    set_option(stream, SO_RCVBUF, bytes);
}

fn set_option<T>(stream: &impl AsRawFd, name: c_int, value: T) {
    let (fd, len) = (stream.as_raw_fd(), size_of::<T>() as u32);
    // SAFETY: the kernel only reads the value, during the call.
    let result = unsafe { setsockopt(fd, SOL_SOCKET, name, (&raw const value).cast(), len) };
    assert_eq!(result, 0, "setsockopt");
}
