//! Linux and Android: epoll, a *readiness* queue.
//!
//! The kernel keeps a list of the descriptors that we are interested in, and a second, usually short list of those
//! among them that are ready. `epoll_ctl` edits the first, `epoll_wait` takes from the second, sleeping while it is
//! empty. Nobody reads a byte for us: that is up to the user, after the event.
//! <https://man7.org/linux/man-pages/man7/epoll.7.html>

#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;

pub use super::unix::TcpStream;
pub use ffi::epoll_event as RawEvent;

use super::error::failed;
use super::unix::{failed_wait, owned_fd, write};
use crate::Token;
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::{Arc, Weak};

pub struct Selector {
    epoll: OwnedFd,
    waker: File,
    /// The number of this process. A child made by `fork` shares `epoll` and `waker` with it.
    process: u32,
    /// Each stream that is registered gets a copy. It is weak, so that a stream does not keep the queue open.
    me: Weak<Selector>,
}

/// `EPOLLIN`: there is something to read, the end of the stream included. (So `EPOLLRDHUP`, "the peer will send no
/// more", would add nothing.) Errors are reported unasked. `EPOLLONESHOT`: report once, then be silent until asked again.
const READABLE_ONCE: u32 = ffi::EPOLLIN | ffi::EPOLLONESHOT;

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let (epoll, waker) = (epoll_create1()?, eventfd()?); // [queue]
        // Not one-shot, and never read: once `wake` has written, it is ready for every wait. Its token is never looked at,
        // so that none is taken from the user.
        epoll_ctl(&epoll, ffi::EPOLL_CTL_ADD, waker.as_fd(), ffi::EPOLLIN, 0)?;
        Ok(Arc::new_cyclic(|me| Selector {
            epoll,
            waker: waker.into(),
            process: process::id(),
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
                // `ENOENT`: another thread has attached it, but has not added it yet, or could not.
                ErrorKind::NotFound => self.add(stream, token),
                _ => Err(error),
            })
    }

    #[cold]
    fn add(&self, stream: &TcpStream, token: Token) -> io::Result<()> {
        stream.attach(&self.me)?; // [first]
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
        epoll_wait(&self.epoll, events, timeout_ms.unwrap_or(-1)) // [wait]
    }

    pub fn wake(&self) -> io::Result<()> {
        if process::id() != self.process {
            return Ok(()); // a forked child: no thread of it waits, and its parent must not be woken
        }
        write(&self.waker, &1u64.to_ne_bytes()) // [wake]
    }

    /// Closing the descriptor would be enough if it had no duplicate. But epoll watches the open file behind it, and a
    /// duplicate keeps that open.
    pub fn deregister(&self, stream: &TcpStream) {
        // [take-back] It fails if `register` did; then there is nothing to take back.
        let _ = epoll_ctl(&self.epoll, ffi::EPOLL_CTL_DEL, stream.inner.as_fd(), 0, 0);
    }
}

impl RawEvent {
    pub fn token(&self) -> Token {
        self.data as Token
    }
}

fn epoll_create1() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a descriptor that was made just now has no owner.
    unsafe { owned_fd("epoll_create1", ffi::epoll_create1(ffi::EPOLL_CLOEXEC)) }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a descriptor that was made just now has no owner.
    unsafe { owned_fd("eventfd", ffi::eventfd(0, ffi::EFD_CLOEXEC)) }
}

fn epoll_ctl(
    epoll: &OwnedFd,
    op: c_int,
    fd: BorrowedFd<'_>,
    events: u32,
    token: Token,
) -> io::Result<()> {
    let mut event = RawEvent {
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
    // [capacity] (Of 0, the kernel says that it is invalid.)
    let (room, capacity) = (events.as_mut_ptr().cast(), events.capacity() as c_int);
    // SAFETY: `room` has space for `capacity` events, a `crate::Event` is laid out as one, and we alone have access.
    // The kernel writes that many at most, and `n` says how many it has written.
    unsafe {
        match ffi::epoll_wait(epoll.as_raw_fd(), room, capacity, timeout) {
            -1 => failed_wait("epoll_wait"),
            n => {
                events.set_len(n as usize);
                Ok(())
            }
        }
    }
}
