//! Linux and Android: epoll, a *readiness* queue.
//!
//! The kernel keeps a list of the descriptors that we are interested in, and a second, usually short one of those among
//! them that are ready. `epoll_ctl` edits the first, `epoll_wait` takes from the second, sleeping while it is empty.
//! Nobody reads a byte for us: that is up to the user, after the event. <https://man7.org/linux/man-pages/man7/epoll.7.html>

#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;

pub use super::unix::TcpStream;
pub use ffi::epoll_event as Event;

use super::error::{failed, failed_with};
use super::unix::{made, unless_interrupted};
use crate::Token;
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

pub struct Selector {
    epoll: OwnedFd,
    wake: File,
    /// For the streams to remember us by: weakly, for the queue must not stay open because a stream does.
    me: Weak<Selector>,
}

/// `EPOLLIN`: there is something to read, the end of the stream included. `EPOLLRDHUP`: the peer will send no more.
/// Errors are told unasked. `EPOLLONESHOT`: tell it once, then be silent until asked again.
const READABLE_ONCE: u32 = ffi::EPOLLIN | ffi::EPOLLRDHUP | ffi::EPOLLONESHOT;

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let (epoll, wake) = (epoll_create1()?, eventfd()?); // [queue]
        // Not one-shot, and nobody ever reads it: after `wake` it is ready for every wait. Its token is never looked
        // at, so that none is taken from the user.
        epoll_ctl(&epoll, ffi::EPOLL_CTL_ADD, wake.as_fd(), ffi::EPOLLIN, 0)?;
        Ok(Arc::new_cyclic(|me| Selector {
            epoll,
            wake: wake.into(),
            me: me.clone(),
        }))
    }

    /// A one-shot descriptor stays in the kernel's list after its event, only silent. So it is added once, and modified
    /// ever after: adding it again would fail with `EEXIST`.
    pub fn register(&self, stream: &TcpStream, token: Token) -> io::Result<()> {
        if !stream.belongs_to(&self.me) {
            return self.add(stream, token);
        }
        self.arm(ffi::EPOLL_CTL_MOD, stream, token)
            .or_else(|error| match error.kind() {
                // `ENOENT`: another thread has got no further than `join`, or had no luck with what follows it.
                ErrorKind::NotFound => self.add(stream, token),
                _ => Err(error),
            })
    }

    #[cold]
    fn add(&self, stream: &TcpStream, token: Token) -> io::Result<()> {
        stream.join(&self.me)?; // [first]
        self.arm(ffi::EPOLL_CTL_ADD, stream, token)
            .or_else(|error| match error.kind() {
                // `EEXIST`: another thread was faster.
                ErrorKind::AlreadyExists => self.arm(ffi::EPOLL_CTL_MOD, stream, token),
                _ => Err(error),
            })
    }

    fn arm(&self, op: c_int, stream: &TcpStream, token: Token) -> io::Result<()> {
        // [arm]
        epoll_ctl(&self.epoll, op, stream.inner.as_fd(), READABLE_ONCE, token)
    }

    pub fn select(
        &self,
        events: &mut Vec<crate::Event>,
        timeout_ms: Option<i32>,
    ) -> io::Result<()> {
        // [wait]
        unless_interrupted(epoll_wait(&self.epoll, events, timeout_ms.unwrap_or(-1)))
    }

    pub fn wake(&self) -> io::Result<()> {
        let (mut to, one) = (&self.wake, 1u64.to_ne_bytes()); // [wake]
        let result = traced!(to.write(&one), "write(fd {}, 8 bytes)", to.as_raw_fd());
        result
            .map(drop)
            .map_err(|error| failed_with("write", error))
    }

    /// Closing the stream's descriptor would do, if it were the only one: epoll watches the open connection, and goes on
    /// as long as a duplicate keeps that open.
    pub fn deregister(&self, stream: &TcpStream) {
        // [take-back] It fails if `register` did; then there is nothing to take back.
        let _ = epoll_ctl(&self.epoll, ffi::EPOLL_CTL_DEL, stream.inner.as_fd(), 0, 0);
    }
}

impl Event {
    pub fn token(&self) -> Token {
        self.data as Token
    }
}

fn epoll_create1() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a descriptor that was made just now has no owner.
    unsafe { made("epoll_create1", ffi::epoll_create1(ffi::EPOLL_CLOEXEC)) }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a descriptor that was made just now has no owner.
    unsafe { made("eventfd", ffi::eventfd(0, ffi::EFD_CLOEXEC)) }
}

fn epoll_ctl(
    epoll: &OwnedFd,
    op: c_int,
    fd: BorrowedFd<'_>,
    events: u32,
    token: Token,
) -> io::Result<()> {
    let mut event = Event {
        events,
        data: token as u64, // [token]
    };
    // SAFETY: the kernel reads `event` before the call returns, and keeps no pointer to it.
    match unsafe { ffi::epoll_ctl(epoll.as_raw_fd(), op, fd.as_raw_fd(), &mut event) } {
        -1 => Err(failed("epoll_ctl")),
        _ => Ok(()),
    }
}

fn epoll_wait(epoll: &OwnedFd, events: &mut Vec<crate::Event>, timeout: c_int) -> io::Result<()> {
    events.clear();
    // [capacity]
    let (room, capacity) = (events.as_mut_ptr().cast(), events.capacity() as c_int);
    // SAFETY: `room` has space for `capacity` events, a `crate::Event` is laid out as one, and we alone have access. The
    // kernel writes that many at most, and `n` says how many it has written.
    unsafe {
        match ffi::epoll_wait(epoll.as_raw_fd(), room, capacity, timeout) {
            -1 => return Err(failed("epoll_wait")),
            n => events.set_len(n as usize),
        }
    }
    Ok(())
}
