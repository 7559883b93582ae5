//! The system calls and nothing else, which no library can undercut. One-shot: `EPOLL_CTL_MOD` asks for the next event.
#![allow(non_camel_case_types)]

use peers::{Contender, read_byte};
use std::ffi::c_int;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
struct epoll_event {
    events: u32,
    data: u64,
}

unsafe extern "C" {
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    fn epoll_wait(epfd: c_int, events: *mut epoll_event, maxevents: c_int, timeout: c_int)
    -> c_int;
}

const EPOLL_CLOEXEC: c_int = 0o2000000;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_MOD: c_int = 3;
const EPOLLIN: u32 = 0x1;
const EPOLLRDHUP: u32 = 0x2000;
const EPOLLONESHOT: u32 = 1 << 30;

struct Raw {
    epoll: c_int,
    events: Vec<epoll_event>,
}

fn control(epoll: c_int, operation: c_int, stream: &TcpStream, token: usize) {
    let mut event = epoll_event {
        events: EPOLLIN | EPOLLRDHUP | EPOLLONESHOT,
        data: token as u64,
    };
    // SAFETY: the event is valid, and the kernel only reads it during the call.
    let result = unsafe { epoll_ctl(epoll, operation, stream.as_raw_fd(), &mut event) };
    assert_eq!(result, 0, "epoll_ctl");
}

impl Contender for Raw {
    type Registry = c_int;
    type Stream = TcpStream;

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
        control(*epoll, EPOLL_CTL_ADD, stream, token);
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
        control(*epoll, EPOLL_CTL_MOD, stream, token);
    }
}

fn main() {
    peers::main::<Raw>();
}
