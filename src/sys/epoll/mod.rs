//! Linux and Android: epoll, a *readiness* queue.
//!
//! The kernel keeps a list of the descriptors that we are interested in, and a second, usually short list of those that
//! are ready. `epoll_ctl` edits the first list. `epoll_wait` returns what is in the second list, and sleeps while that
//! list is empty. The kernel reads no byte for us: the user reads after the event.
//! <https://man7.org/linux/man-pages/man7/epoll.7.html>
//!
//! A queue has one entry for a descriptor, and one-shot disables the whole entry. With a single queue, an event for
//! reading would therefore silence a registration for writing. So there are two queues, `readers` and `writers`. A
//! queue is itself a descriptor, and `readers` watches `writers`, so that one wait is enough for both.

#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;

pub use ffi::epoll_event as RawEvent;

use super::unix::{Source, check, failed_wait, owned_fd, write};
use crate::{Event, Interests, Token};
use ffi::{EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};
use ffi::{EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLRDNORM};
use std::ffi::c_int;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::{process, ptr};

pub struct Selector {
    readers: OwnedFd,
    writers: OwnedFd,
    /// Whether any source was ever registered for writing.
    has_writers: AtomicBool,
    waker: File,
    /// The ID of the process that made the queues. A child made by `fork` shares them, and `waker`, with its parent.
    process: u32,
    /// Each registered source gets a copy. The reference is weak, so that a source does not keep the queues open.
    me: Weak<Selector>,
}

/// What a source remembers of its entries in `readers` and in `writers`: the address of the selector if there is an
/// entry, or 0. So one comparison is usually enough: if the address is that of this selector, the source belongs to it,
/// and the entry must be modified. If not, `attach` refuses a source that belongs to another selector, and for any
/// other source an entry is added. (As long as the source exists, no other selector gets this address, because the
/// `Weak` in the source keeps the memory allocated.)
pub type Entries = [AtomicUsize; 2];

/// `EPOLLIN`: there is data to read, or the end of the stream. (So `EPOLLRDHUP`, "the peer will send no more", would
/// add nothing.) Errors and hang-ups are always reported. `EPOLLONESHOT`: report once, then disable the entry until it
/// is modified.
const READABLE_ONCE: u32 = EPOLLIN | EPOLLONESHOT;

/// `EPOLLOUT`: there is room in the send buffer, or the connection is broken.
const WRITABLE_ONCE: u32 = EPOLLOUT | EPOLLONESHOT;

/// How `readers` reports that there is an event in `writers`. No source asks for `EPOLLRDNORM`, so this bit
/// distinguishes the entry of `writers` from the entry of a source. (`EPOLLIN` is needed too, because the kernel
/// notifies with that bit.)
const WRITERS: u32 = EPOLLIN | EPOLLRDNORM;

/// The token by which the feature `trace` recognizes the waker. A source may have the same token.
const WAKER: u64 = u64::from_le_bytes(*b"wake-up!");

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let (readers, writers, waker) = (epoll_create1()?, epoll_create1()?, eventfd()?); // [queue]
        // Neither entry is one-shot, and `select` looks at neither token, so no token is reserved. (`writers` is
        // recognized by its `EPOLLRDNORM`.) The waker is never read: after `wake` has written to it, it stays ready for
        // every wait.
        let data = WAKER;
        let event = |events| RawEvent { events, data };
        epoll_ctl(&readers, EPOLL_CTL_ADD, waker.as_fd(), event(EPOLLIN))?;
        epoll_ctl(&readers, EPOLL_CTL_ADD, writers.as_fd(), event(WRITERS))?;
        Ok(Arc::new_cyclic(|me| Selector {
            readers,
            writers,
            has_writers: AtomicBool::new(false),
            waker: waker.into(),
            process: process::id(),
            me: me.clone(),
        }))
    }

    /// After its event, a one-shot entry stays in the queue, disabled. So a source is added once, and modified from
    /// then on.
    pub fn register<S: AsFd>(
        &self,
        source: &Source<S>,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        let [to_read, to_write] = &source.entries;
        let (queue, events, entry) = if interests.is_readable() {
            (&self.readers, READABLE_ONCE, to_read)
        } else {
            self.has_writers.store(true, SeqCst);
            (&self.writers, WRITABLE_ONCE, to_write)
        };
        let (fd, data) = (source.inner.as_fd(), token as u64); // [token]
        let (event, me) = (RawEvent { events, data }, ptr::from_ref(self).addr());
        if entry.load(SeqCst) != me {
            source.attach(&self.me)?;
            return add(queue, fd, event).inspect(|()| entry.store(me, SeqCst));
        }
        epoll_ctl(queue, EPOLL_CTL_MOD, fd, event) // [arm]
    }

    pub fn select(&self, events: &mut Vec<Event>, timeout_ms: Option<i32>) -> io::Result<()> {
        events.clear();
        epoll_wait(&self.readers, events, timeout_ms.unwrap_or(-1))?; // [wait]
        match self.has_writers.load(SeqCst) {
            true => self.select_writers(events),
            false => Ok(()),
        }
    }

    /// If `readers` has reported that there are events in `writers`, replaces the report with these events. Events
    /// without room stay in `writers`. Then `readers` reports `writers` again, after the sources that are ready by now
    /// and before those that become ready later, so neither direction starves the other.
    fn select_writers(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let is_report = |event: &Event| event.0.events & EPOLLRDNORM != 0;
        let Some(at) = events.iter().position(is_report) else {
            return Ok(());
        };
        events.swap_remove(at);
        let readers = events.len();
        let result = epoll_wait(&self.writers, events, 0);
        // The kernel reports a reset with `EPOLLOUT`. But if there is no room, it reports a message in the socket's
        // error queue (because of `SO_TIMESTAMPING`, for example) as `EPOLLERR` alone. So we set `EPOLLOUT`, the bit by
        // which `is_writable` recognizes an event of `writers`.
        let came = events[readers..].iter_mut();
        came.for_each(|event| event.0.events |= EPOLLOUT);
        match result {
            Err(error) if events.is_empty() => Err(error),
            // The stream that was ready was dropped in the meantime, or another thread has filled its buffer. A source
            // that is ready to read may have had no room beside the report of `writers`. Without events now, a `poll`
            // whose timeout is 0 or has expired would return `Ok(0)` in spite of that source. So look again, without
            // sleeping.
            Ok(()) if events.is_empty() => self.select(events, Some(0)),
            // If the second wait has failed, the events of the first must be returned all the same: the kernel will not
            // report them again.
            _ => Ok(()),
        }
    }

    pub fn wake(&self) -> io::Result<()> {
        if process::id() != self.process {
            return Ok(()); // in a forked child no thread waits, and the write would wake the parent
        }
        write(&self.waker, &1u64.to_ne_bytes()) // [wake]
    }

    /// Closing the descriptor would be enough if it had no duplicate. But epoll watches the open file behind the
    /// descriptor, and a duplicate keeps that file open.
    pub fn deregister(&self, source: BorrowedFd<'_>, entries: &Entries) {
        let nothing = RawEvent { events: 0, data: 0 };
        let queues = [&self.readers, &self.writers].into_iter().zip(entries);
        for (queue, _) in queues.filter(|(_, entry)| entry.load(SeqCst) != 0) {
            let _ = epoll_ctl(queue, EPOLL_CTL_DEL, source, nothing); // [take-back]
        }
    }
}

impl RawEvent {
    pub fn token(&self) -> Token {
        self.data as Token
    }

    /// Only an event of `writers` has this bit.
    pub fn is_writable(&self) -> bool {
        self.events & EPOLLOUT != 0
    }
}

#[cold]
fn add(queue: &OwnedFd, fd: BorrowedFd<'_>, event: RawEvent) -> io::Result<()> {
    match epoll_ctl(queue, EPOLL_CTL_ADD, fd, event) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            epoll_ctl(queue, EPOLL_CTL_MOD, fd, event) // `EEXIST`: another thread has just added it
        }
        result => result,
    }
}

fn epoll_create1() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a new descriptor has no owner.
    unsafe { owned_fd("epoll_create1", ffi::epoll_create1(ffi::EPOLL_CLOEXEC)) }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a new descriptor has no owner.
    unsafe { owned_fd("eventfd", ffi::eventfd(0, ffi::EFD_CLOEXEC)) }
}

fn epoll_ctl(epfd: &OwnedFd, op: c_int, fd: BorrowedFd<'_>, mut event: RawEvent) -> io::Result<()> {
    // SAFETY: the kernel reads `event` before the call returns, and keeps no pointer to it.
    let result = unsafe { ffi::epoll_ctl(epfd.as_raw_fd(), op, fd.as_raw_fd(), &mut event) };
    check("epoll_ctl", result)
}

/// Appends events. Without room for one, the kernel returns `EINVAL`.
fn epoll_wait(epoll: &OwnedFd, events: &mut Vec<Event>, timeout: c_int) -> io::Result<()> {
    // [capacity]
    let room = events.spare_capacity_mut();
    let (place, capacity) = (room.as_mut_ptr().cast(), room.len() as c_int);
    // SAFETY: there is room for `capacity` events at `place`, an `Event` has the kernel's layout, and we alone have
    // access. The kernel writes at most that many.
    let n = unsafe { ffi::epoll_wait(epoll.as_raw_fd(), place, capacity, timeout) };
    if n == -1 {
        return failed_wait("epoll_wait");
    }
    // SAFETY: `n` says how many events the kernel has written.
    unsafe { events.set_len(events.len() + n as usize) };
    Ok(())
}
