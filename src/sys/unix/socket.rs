//! Makes a socket that does not block and is not inherited by child programs, and starts its connection.

use super::super::error::failed_with;
use super::{Source, ffi, owned_fd};
use std::ffi::c_int;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

#[cfg(not(any(target_os = "macos", target_os = "ios")))]
pub fn new_socket(family: c_int) -> io::Result<Source<TcpStream>> {
    let kind = ffi::SOCK_STREAM | ffi::SOCK_CLOEXEC | ffi::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed, and a new descriptor has no owner.
    let socket = unsafe { owned_fd("socket", ffi::socket(family, kind, 0))? };
    Ok(TcpStream::from(socket).into())
}

/// Apple's `socket` has no flags. So a child program that another thread starts between `socket` and `fcntl` inherits
/// the socket.
#[cfg(any(target_os = "macos", target_os = "ios"))]
pub fn new_socket(family: c_int) -> io::Result<Source<TcpStream>> {
    // SAFETY: no pointer is passed, and a new descriptor has no owner.
    let socket = unsafe { owned_fd("socket", ffi::socket(family, ffi::SOCK_STREAM, 0))? };
    let (fd, yes, len) = (socket.as_raw_fd(), 1 as c_int, size_of::<c_int>() as u32);
    let (option, value) = (ffi::SO_NOSIGPIPE, (&raw const yes).cast());
    // SAFETY: the descriptor is open, the command takes a number, and `yes` outlives the call.
    unsafe {
        super::check("fcntl", ffi::fcntl(fd, ffi::F_SETFD, ffi::FD_CLOEXEC))?;
        let result = ffi::setsockopt(fd, ffi::SOL_SOCKET, option, value, len);
        super::check("setsockopt", result)?;
    }
    let socket = TcpStream::from(socket);
    let result = socket.set_nonblocking(true);
    result.map_err(|error| failed_with("ioctl", error))?;
    Ok(socket.into())
}

/// `EINPROGRESS` is success: the connection is being made. So is `EINTR`: the kernel goes on connecting after a signal.
pub fn connect<T>(socket: &TcpStream, address: &T) -> io::Result<()> {
    let (fd, len) = (socket.as_raw_fd(), size_of::<T>() as ffi::socklen_t);
    // SAFETY: the descriptor is open, and `address` outlives the call.
    let result = unsafe { ffi::connect(fd, (&raw const *address).cast(), len) };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(ffi::EINPROGRESS) => Ok(()),
        (_, error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        (_, error) => Err(failed_with("connect", error)),
    }
}
