//! The system calls and nothing else, which no library can undercut. One-shot: `EPOLL_CTL_MOD` asks for the next event.
#![allow(non_camel_case_types)]

use peers::{Contender, fill, read_byte};
use std::ffi::c_int;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};

#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
struct epoll_event {
    events: u32,
    data: u64,
}

/// With the address and the port in network byte order.
#[repr(C)]
struct sockaddr_in {
    sin_family: u16,
    sin_port: u16,
    sin_addr: u32,
    sin_zero: [u8; 8],
}

unsafe extern "C" {
    fn connect(fd: c_int, addr: *const sockaddr_in, len: u32) -> c_int;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int)
    -> c_int;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
}

const AF_INET: c_int = 2;
const SOCK_STREAM: c_int = 1;
const SOCK_NONBLOCK: c_int = 0o4000;
const SOCK_CLOEXEC: c_int = 0o2000000;
const EINPROGRESS: c_int = 115;

const EPOLL_CLOEXEC: c_int = 0o2000000;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_MOD: c_int = 3;
const EPOLLIN: u32 = 0x1;
const EPOLLOUT: u32 = 0x4;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLONESHOT: u32 = 1 << 30;

struct Raw {
    epoll: c_int,
    events: Vec<epoll_event>,
}

fn control(epoll: c_int, operation: c_int, fd: &impl AsRawFd, events: u32, token: usize) {
    let mut event = epoll_event {
        events: events | EPOLLONESHOT,
        data: token as u64,
    };
    // SAFETY: the event is valid, and the kernel only reads it during the call.
    let result = unsafe { epoll_ctl(epoll, operation, fd.as_raw_fd(), &mut event) };
    assert_eq!(result, 0, "epoll_ctl");
}

fn start_connect(addr: SocketAddr) -> TcpStream {
    let SocketAddr::V4(addr) = addr else {
        panic!("not an IPv4 address");
    };
    let addr = sockaddr_in {
        sin_family: AF_INET as u16,
        sin_port: addr.port().to_be(),
        sin_addr: addr.ip().to_bits().to_be(),
        sin_zero: [0; 8],
    };
    // SAFETY: the address is valid, the kernel only reads it during the call, and a new descriptor has no owner.
    unsafe {
        let fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "socket");
        let started = connect(fd, &addr, size_of::<sockaddr_in>() as u32);
        assert_eq!(started, -1, "not at once");
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(EINPROGRESS));
        TcpStream::from_raw_fd(fd)
    }
}

impl Contender for Raw {
    type Registry = c_int;
    type Stream = TcpStream;
    type Connecting = TcpStream;
    type Listener = TcpListener;

    fn new(capacity: usize) -> (Self, c_int) {
        // SAFETY: the call takes no memory.
        let epoll = unsafe { epoll_create1(EPOLL_CLOEXEC) };
        assert!(epoll >= 0, "epoll_create1");
        let events = Vec::with_capacity(capacity);
        (Raw { epoll, events }, epoll)
    }

    fn adopt(stream: TcpStream) -> TcpStream {
        stream
    }

    fn register(epoll: &c_int, stream: &mut TcpStream, token: usize) {
        control(*epoll, EPOLL_CTL_ADD, stream, EPOLLIN | EPOLLRDHUP, token);
    }

    fn wait(&mut self, timeout_ms: i32) {
        let room = self.events.capacity() as c_int;
        // SAFETY: the kernel writes at most `room` events, and there is room for them.
        let n = unsafe { epoll_wait(self.epoll, self.events.as_mut_ptr(), room, timeout_ms) };
        assert!(n >= 0, "epoll_wait");
        // SAFETY: the kernel has written so many.
        unsafe { self.events.set_len(n as usize) };
    }

    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|event| event.data as usize)
    }

    fn read(epoll: &c_int, stream: &TcpStream, token: usize) {
        read_byte(stream);
        control(*epoll, EPOLL_CTL_MOD, stream, EPOLLIN | EPOLLRDHUP, token);
    }

    fn register_writer(epoll: &c_int, stream: &mut TcpStream, token: usize) {
        control(*epoll, EPOLL_CTL_ADD, stream, EPOLLOUT, token);
    }

    fn pour(epoll: &c_int, stream: &TcpStream, token: usize) -> usize {
        let written = fill(stream);
        control(*epoll, EPOLL_CTL_MOD, stream, EPOLLOUT, token);
        written
    }

    fn listen(epoll: &c_int, token: usize) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        control(*epoll, EPOLL_CTL_ADD, &listener, EPOLLIN, token);
        (listener, addr)
    }

    fn accept(epoll: &c_int, listener: &TcpListener, token: usize) -> TcpStream {
        let (stream, _) = listener.accept().expect("accept");
        control(*epoll, EPOLL_CTL_MOD, listener, EPOLLIN, token);
        stream
    }

    fn connect(epoll: &c_int, addr: SocketAddr, token: usize) -> TcpStream {
        let stream = start_connect(addr);
        control(*epoll, EPOLL_CTL_ADD, &stream, EPOLLOUT, token);
        stream
    }

    fn finish(stream: TcpStream) -> TcpStream {
        assert!(stream.take_error().expect("take_error").is_none());
        stream
    }

    /// The kernel removes the entry.
    fn close(_: &c_int, _: TcpStream) {}
}

fn main() {
    peers::main::<Raw>();
}
