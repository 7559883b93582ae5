//! macOS, iOS and the BSDs: kqueue, a *readiness* queue.
//!
//! Like epoll, a kqueue has a list of what we are interested in and a list of what is ready. But one call, `kevent`,
//! edits the first list and returns what is in the second. An entry of these lists is a *knote*: a number, usually a
//! descriptor, together with a *filter*, which says what to watch for.
//! <https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2>

#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;

pub use ffi::kevent as RawEvent;

use super::error::{failed, failed_with, failed_with_code};
use super::unix::ffi::{F_SETFD, FD_CLOEXEC, fcntl};
use super::unix::{Source, check, failed_wait, owned_fd};
use crate::{Event, Interests, Token};
use ffi::{EV_ADD, EV_ERROR, EV_ONESHOT, EV_RECEIPT, EVFILT_READ, EVFILT_WRITE};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::{mem, ptr};

pub struct Selector {
    kqueue: OwnedFd,
    waker: Waker,
    /// Each registered source gets a copy. The reference is weak, so that a source does not keep the queue open.
    me: Weak<Selector>,
}

/// A source remembers nothing of its knotes: the kernel finds a knote by its descriptor and filter.
pub type Entries = ();

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let kqueue = kqueue()?; // [queue]
        // The waker is not one-shot and never reset: after `wake` was called, it stays ready for every wait. `select`
        // does not look at its token, so no token is reserved.
        let waker = Waker::new(&kqueue)?;
        Ok(Arc::new_cyclic(|me| Selector {
            kqueue,
            waker,
            me: me.clone(),
        }))
    }

    /// Reading and writing are two filters, and so two knotes, each with its own one-shot and its own token.
    ///
    /// When the kernel returns the event of a one-shot knote, it deletes the knote, so each registration adds the knote
    /// again. If the knote is still there, adding it replaces its token. (The BSDs keep an event that has already
    /// fired, so it may refer to data that has since been read. macOS runs the filter again, and returns no such
    /// event.)
    pub fn register<S: AsFd>(
        &self,
        source: &Source<S>,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        source.attach(&self.me)?;
        let filter = match interests.is_writable() {
            true => EVFILT_WRITE, // there is room in the send buffer, or the connection is broken
            false => EVFILT_READ, // there is something to read, or the end of the stream, or an error
        };
        let mut change = change(source.inner.as_fd().as_raw_fd() as usize, filter);
        change.flags |= EV_ONESHOT;
        change.udata = ptr::without_provenance_mut(token); // [token]
        kevent_change(&self.kqueue, change) // [arm]
    }

    pub fn select(&self, events: &mut Vec<Event>, timeout_ms: Option<i32>) -> io::Result<()> {
        if events.capacity() == 0 {
            return Err(ErrorKind::InvalidInput.into()); // `kevent` would return at once, as if the timeout had expired
        }
        kevent_wait(&self.kqueue, events, timeout_ms) // [wait]
    }

    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake(&self.kqueue) // [wake]
    }

    /// Nothing to do: a knote belongs to the descriptor, not to the open connection behind it, and is deleted when the
    /// descriptor is closed, even if a duplicate lives on.
    pub fn deregister(&self, _: BorrowedFd<'_>, _: &Entries) {} // [take-back]
}

impl RawEvent {
    pub fn token(&self) -> Token {
        self.udata.addr()
    }

    pub fn is_writable(&self) -> bool {
        self.filter == EVFILT_WRITE
    }
}

// SAFETY: its pointer is only used as a number.
unsafe impl Send for RawEvent {}
// SAFETY: likewise.
unsafe impl Sync for RawEvent {}

/// An event that we trigger ourselves.
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
struct Waker;

#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
impl Waker {
    fn new(kqueue: &OwnedFd) -> io::Result<Waker> {
        kevent_change(kqueue, change(0, ffi::EVFILT_USER))?;
        Ok(Waker)
    }

    fn wake(&self, kqueue: &OwnedFd) -> io::Result<()> {
        // The knote exists, and adding it again does no harm.
        let mut change = change(0, ffi::EVFILT_USER);
        change.fflags = ffi::NOTE_TRIGGER;
        kevent_change(kqueue, change)
    }
}

/// A socket to which `wake` sends a byte that is never read.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
struct Waker {
    _near: std::os::unix::net::UnixStream,
    far: std::os::unix::net::UnixStream,
}

#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
impl Waker {
    fn new(kqueue: &OwnedFd) -> io::Result<Waker> {
        let pair = std::os::unix::net::UnixStream::pair();
        let (_near, far) = pair.map_err(|error| failed_with("socketpair", error))?;
        kevent_change(kqueue, change(_near.as_raw_fd() as usize, EVFILT_READ))?;
        Ok(Waker { _near, far })
    }

    fn wake(&self, _: &OwnedFd) -> io::Result<()> {
        super::unix::write(&self.far, b"!")
    }
}

fn kqueue() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed, and a new descriptor has no owner.
    let kqueue = unsafe { owned_fd("kqueue", ffi::kqueue())? };
    // A forked child does not inherit a kqueue. The flag is for an `exec` without a `fork`.
    // SAFETY: the descriptor is open, and this command takes a number.
    let result = unsafe { fcntl(kqueue.as_raw_fd(), F_SETFD, FD_CLOEXEC) };
    check("fcntl", result).map(|()| kqueue)
}

fn change(ident: usize, filter: ffi::filter_t) -> RawEvent {
    RawEvent {
        ident,
        filter,
        flags: EV_ADD | EV_RECEIPT,
        // SAFETY: these are numbers and a pointer, which may be zero.
        ..unsafe { mem::zeroed() }
    }
}

/// `EV_RECEIPT` returns the result of the change, an error number or 0, as an event that is marked `EV_ERROR`. This
/// receipt fills our one-element list, so `kevent` takes no event that is meant for `select`. A system that does not
/// know this flag returns no receipt, and would then wait for an event. With a timeout of 0, the call returns at once.
fn kevent_change(kqueue: &OwnedFd, mut change: RawEvent) -> io::Result<()> {
    let place = &raw mut change;
    let no_wait = ffi::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel reads one change from `place`, and then writes at most one event there, before the call
    // returns. `no_wait` outlives the call.
    match unsafe { ffi::kevent(kqueue.as_raw_fd(), place, 1, place, 1, &no_wait) } {
        -1 => Err(failed("kevent")),
        1 if change.flags & EV_ERROR != 0 => match change.data as i32 {
            0 => Ok(()),
            errno => Err(failed_with_code("kevent", errno)),
        },
        _ => Err(failed_with(
            "kevent: no receipt",
            ErrorKind::Unsupported.into(),
        )),
    }
}

fn kevent_wait(
    kqueue: &OwnedFd,
    events: &mut Vec<Event>,
    timeout_ms: Option<i32>,
) -> io::Result<()> {
    events.clear();
    let (room, capacity) = (events.as_mut_ptr().cast(), events.capacity()); // [capacity]
    let timeout = timeout_ms.map(|ms| ffi::timespec {
        tv_sec: (ms / 1000).into(),
        tv_nsec: (ms % 1000 * 1_000_000).into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `room` has space for `capacity` events, an `Event` has the kernel's layout, and we alone have access. The
    // kernel writes at most that many, and `n` says how many it has written. `timeout` is null or outlives the call.
    unsafe {
        match ffi::kevent(
            kqueue.as_raw_fd(),
            ptr::null(),
            0,
            room,
            capacity as _,
            timeout,
        ) {
            -1 => failed_wait("kevent"),
            n => {
                events.set_len(n as usize);
                Ok(())
            }
        }
    }
}
