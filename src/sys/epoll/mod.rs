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
use crate::{Interests, Token};
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Weak};

pub struct Selector {
    epoll: OwnedFd,
    /// The second queue, which `epoll` watches: it holds the sources that wait to write. A queue has one entry for a
    /// descriptor, and one-shot disables the whole entry. So with one queue, an event for reading would silence a
    /// registration for writing.
    writers: OwnedFd,
    /// Whether `writers` was ever used.
    has_writers: AtomicBool,
    waker: File,
    /// The number of this process. A child made by `fork` shares the queues and `waker` with it.
    process: u32,
    /// Each source that is registered gets a copy. It is weak, so that a source does not keep the queues open.
    me: Weak<Selector>,
}

/// Which queues have an entry for a stream.
#[derive(Default)]
pub struct Entries {
    to_read: AtomicBool,
    to_write: AtomicBool,
}

/// `EPOLLIN`: there is something to read, the end of the stream included. (So `EPOLLRDHUP`, "the peer will send no
/// more", would add nothing.) Errors are reported unasked. `EPOLLONESHOT`: report once, then be silent until asked again.
const READABLE_ONCE: u32 = ffi::EPOLLIN | ffi::EPOLLONESHOT;

/// `EPOLLOUT`: there is room in the send buffer, or the connection is broken.
const WRITABLE_ONCE: u32 = ffi::EPOLLOUT | ffi::EPOLLONESHOT;

/// How `epoll` reports that there is an event in `writers`. No source asks for `EPOLLRDNORM`, so this bit tells the entry of
/// `writers` from that of any source. (`EPOLLIN` has to be asked for as well, because the kernel notifies with that one.)
const WRITERS: u32 = ffi::EPOLLIN | ffi::EPOLLRDNORM;

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let (epoll, writers, waker) = (epoll_create1()?, epoll_create1()?, eventfd()?); // [queue]
        // Neither of these is one-shot. The waker is never read: once `wake` has written, it is ready for every wait. Both
        // tokens are never looked at, so that none is taken from the user.
        epoll_ctl(&epoll, ffi::EPOLL_CTL_ADD, waker.as_fd(), ffi::EPOLLIN, 0)?;
        epoll_ctl(&epoll, ffi::EPOLL_CTL_ADD, writers.as_fd(), WRITERS, 0)?;
        Ok(Arc::new_cyclic(|me| Selector {
            epoll,
            writers,
            has_writers: AtomicBool::new(false),
            waker: waker.into(),
            process: process::id(),
            me: me.clone(),
        }))
    }

    /// A one-shot entry stays in the queue after its event, only disabled. So it is added once, and modified ever after:
    /// adding it again would fail with `EEXIST`.
    pub fn register(
        &self,
        stream: &TcpStream,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        if !stream.belongs_to(&self.me) {
            stream.attach(&self.me)?; // [first]
        }
        let (queue, events, has_entry) = match interests.is_writable() {
            true => (self.use_writers(), WRITABLE_ONCE, &stream.entries.to_write),
            false => (&self.epoll, READABLE_ONCE, &stream.entries.to_read),
        };
        // [arm]
        let arm = |op| epoll_ctl(queue, op, stream.inner.as_fd(), events, token);
        if has_entry.load(Relaxed) {
            return arm(ffi::EPOLL_CTL_MOD);
        }
        match arm(ffi::EPOLL_CTL_ADD) {
            // `EEXIST`: another thread was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => arm(ffi::EPOLL_CTL_MOD),
            result => result.inspect(|()| has_entry.store(true, Relaxed)),
        }
    }

    fn use_writers(&self) -> &OwnedFd {
        self.has_writers.store(true, SeqCst);
        &self.writers
    }

    pub fn select(
        &self,
        events: &mut Vec<crate::Event>,
        timeout_ms: Option<i32>,
    ) -> io::Result<()> {
        events.clear();
        epoll_wait(&self.epoll, events, timeout_ms.unwrap_or(-1))?; // [wait]
        match self.has_writers.load(SeqCst) {
            true => self.select_writers(events),
            false => Ok(()),
        }
    }

    /// Puts what waits to write in the place of the entry of `writers`. Whatever there is no room for stays in `writers`,
    /// whose entry is then reported by the next wait, when the sources that are ready to read have had their turn.
    fn select_writers(&self, events: &mut Vec<crate::Event>) -> io::Result<()> {
        let entry = events
            .iter()
            .position(|event| event.0.is_entry_of_writers());
        let Some(at) = entry else { return Ok(()) };
        events.swap_remove(at);
        match epoll_wait(&self.writers, events, 0) {
            Err(error) if events.is_empty() => Err(error),
            _ => Ok(()), // the events in hand must not be lost: they will not be reported again
        }
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
        let entries = [
            (&self.epoll, &stream.entries.to_read),
            (&self.writers, &stream.entries.to_write),
        ];
        for (queue, has_entry) in entries {
            if has_entry.load(Relaxed) {
                // [take-back] There is no one to tell of a failure.
                let _ = epoll_ctl(queue, ffi::EPOLL_CTL_DEL, stream.inner.as_fd(), 0, 0);
            }
        }
    }
}

impl RawEvent {
    pub fn token(&self) -> Token {
        self.data as Token
    }

    /// Errors are reported unasked, but the kernel never reports `EPOLLOUT` to an entry that did not ask for it; and when
    /// it reports an error to one that did, `EPOLLOUT` is among the bits.
    pub fn is_writable(&self) -> bool {
        self.events & ffi::EPOLLOUT != 0
    }

    fn is_entry_of_writers(&self) -> bool {
        self.events & ffi::EPOLLRDNORM != 0
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

/// Appends events, for which there must be room.
fn epoll_wait(epoll: &OwnedFd, events: &mut Vec<crate::Event>, timeout: c_int) -> io::Result<()> {
    // [capacity] (Of 0, the kernel says that it is invalid.)
    let room = events.spare_capacity_mut();
    let (place, capacity) = (room.as_mut_ptr().cast(), room.len() as c_int);
    // SAFETY: there is room for `capacity` events at `place`, a `crate::Event` is laid out as one, and we alone have access.
    // The kernel writes that many at most, and `n` says how many it has written.
    unsafe {
        match ffi::epoll_wait(epoll.as_raw_fd(), place, capacity, timeout) {
            -1 => failed_wait("epoll_wait"),
            n => {
                events.set_len(events.len() + n as usize);
                Ok(())
            }
        }
    }
}
