//! Starting a connection: the address in the system's layout, and the calls of `new_socket` and `connect`.

use super::Source;
#[cfg(windows)]
use super::iocp::{ffi, socket};
#[cfg(unix)]
use super::unix::{ffi, socket};
use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};

/// Returns at once with a non-blocking socket whose connection is being made, or is established already.
pub fn start_connect(addr: SocketAddr) -> io::Result<Source<TcpStream>> {
    match addr {
        SocketAddr::V4(addr) => start(ffi::AF_INET, &sockaddr_in(&addr)),
        SocketAddr::V6(addr) => start(ffi::AF_INET6, &sockaddr_in6(&addr)),
    }
}

fn start<T>(family: c_int, address: &T) -> io::Result<Source<TcpStream>> {
    let source = socket::new_socket(family)?;
    socket::connect(&source.inner, address).map(|()| source)
}

fn sockaddr_in(addr: &SocketAddrV4) -> ffi::sockaddr_in {
    let s_addr = u32::from_ne_bytes(addr.ip().octets());
    ffi::sockaddr_in {
        #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
        sin_len: size_of::<ffi::sockaddr_in>() as u8,
        sin_family: ffi::AF_INET as _,
        sin_port: addr.port().to_be(),
        sin_addr: ffi::in_addr { s_addr },
        sin_zero: [0; 8],
    }
}

fn sockaddr_in6(addr: &SocketAddrV6) -> ffi::sockaddr_in6 {
    let s6_addr = addr.ip().octets();
    ffi::sockaddr_in6 {
        #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
        sin6_len: size_of::<ffi::sockaddr_in6>() as u8,
        sin6_family: ffi::AF_INET6 as _,
        sin6_port: addr.port().to_be(),
        sin6_flowinfo: addr.flowinfo(),
        sin6_addr: ffi::in6_addr { s6_addr },
        sin6_scope_id: addr.scope_id(),
    }
}
