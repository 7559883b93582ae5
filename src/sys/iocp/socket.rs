//! Creates a socket that does not block and is not inherited, and starts its connection.

use super::super::error::{failed_with, failed_with_code};
use super::{Source, ffi, last_error};
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::windows::io::{AsRawSocket, FromRawSocket, RawSocket};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

pub fn new_socket(family: c_int) -> io::Result<Source<TcpStream>> {
    start_winsock()?;
    let flags = ffi::WSA_FLAG_OVERLAPPED | ffi::WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: the pointer may be null, and a new socket has no other owner.
    let socket = unsafe {
        match ffi::WSASocketW(family, ffi::SOCK_STREAM, 0, ptr::null(), 0, flags) {
            ffi::INVALID_SOCKET => return Err(failed_with_code("WSASocketW", last_error())),
            socket => TcpStream::from_raw_socket(socket as RawSocket),
        }
    };
    let source = Source::from(socket);
    let result = source.set_nonblocking(true).map(|()| source);
    result.map_err(|error| failed_with("ioctlsocket", error))
}

/// `std` starts Winsock only when it creates its first socket. Starting Winsock twice does no harm. After a failure the
/// next call tries again.
fn start_winsock() -> io::Result<()> {
    static IS_STARTED: AtomicBool = AtomicBool::new(false);
    if !IS_STARTED.load(SeqCst) {
        // SAFETY: Winsock writes to the struct only until the call returns. We do not read the struct.
        match unsafe { ffi::WSAStartup(0x0202, MaybeUninit::uninit().as_mut_ptr()) } {
            0 => IS_STARTED.store(true, SeqCst),
            error => return Err(failed_with_code("WSAStartup", error)),
        }
    }
    Ok(())
}

/// A connection that is still being made is not a failure.
pub fn connect<T>(socket: &TcpStream, address: &T) -> io::Result<()> {
    let socket = socket.as_raw_socket() as ffi::SOCKET;
    let len = size_of::<T>() as c_int;
    // SAFETY: the socket is open, and the kernel uses `address` only until the call returns.
    let result = unsafe { ffi::connect(socket, (&raw const *address).cast(), len) };
    match (result, last_error()) {
        (0, _) | (_, ffi::WSAEWOULDBLOCK) => Ok(()),
        (_, error) => Err(failed_with_code("connect", error)),
    }
}
