//! The code that the two readiness backends, epoll and kqueue, share: above all the source. The kernel says *when* to
//! read, write or accept, and moves no byte before we call it. So a source only has to remember where it is registered.

#[cfg_attr(feature = "trace", path = "traced.rs")]
pub mod ffi;
pub mod socket;

use super::error::{belongs_to_another, failed, failed_with};
#[cfg(feature = "trace")]
use super::trace;
use super::{Entries, Selector, recv_vectored};
use std::ffi::c_int;
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{OnceLock, Weak};

/// One of `std`'s sockets, with what we remember of its registrations.
pub struct Source<S: AsFd> {
    pub inner: S,
    selector: OnceLock<Weak<Selector>>,
    /// What the source remembers of its entries in the selector's queue.
    #[allow(dead_code)] // a kqueue has nothing to remember
    pub(super) entries: Entries,
}

impl<S: AsFd> From<S> for Source<S> {
    fn from(inner: S) -> Source<S> {
        Source {
            inner,
            selector: OnceLock::new(),
            entries: Entries::default(),
        }
    }
}

impl<S: AsFd> Source<S> {
    /// Makes the source belong to this selector, or fails if it belongs to another one.
    #[cold] // on epoll, which calls it for the first registration in each direction; kqueue always calls it
    pub(super) fn attach(&self, selector: &Weak<Selector>) -> io::Result<()> {
        let mine = self.selector.get_or_init(|| selector.clone()); // [first]
        // [own]
        match mine.ptr_eq(selector) {
            true => Ok(()),
            false => Err(belongs_to_another()),
        }
    }
}

impl<S: AsFd> Drop for Source<S> {
    fn drop(&mut self) {
        // `inner` is closed after this function, so its descriptor number is still ours.
        if let Some(selector) = self.selector.get().and_then(Weak::upgrade) {
            selector.deregister(self.inner.as_fd(), &self.entries);
        }
        traced_close!(self.inner.as_fd());
    }
}

impl Source<TcpStream> {
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stream = &self.inner;
        // [read]
        traced!(
            stream.read(buf),
            "recv({}, {} bytes)",
            trace::name_of(stream),
            buf.len()
        )
    }

    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        recv_vectored(&self.inner, bufs)
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)
    }
}

macro_rules! as_fd {
    ($($source:ty),*) => {$(
        impl AsFd for $source {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.inner.as_fd()
            }
        }

        impl AsRawFd for $source {
            fn as_raw_fd(&self) -> RawFd {
                self.0.inner.as_raw_fd()
            }
        }
    )*};
}

as_fd!(crate::TcpStream, crate::TcpListener, crate::Connecting);

/// Takes ownership of the descriptor that a call has returned.
///
/// # Safety
///
/// `fd` is -1 or a descriptor without an owner.
pub(super) unsafe fn owned_fd(call: &'static str, fd: c_int) -> io::Result<OwnedFd> {
    check(call, fd)?;
    // SAFETY: the caller promises it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn check(call: &'static str, result: c_int) -> io::Result<()> {
    match result {
        -1 => Err(failed(call)),
        _ => Ok(()),
    }
}

/// The result of a wait that returned -1. If a signal handler has interrupted the wait, the result is `Ok` without
/// events, and `Poll::poll` waits again. The error number is checked before `failed_with` adds the name of the call,
/// because that allocates.
#[cold]
pub(super) fn failed_wait(call: &'static str) -> io::Result<()> {
    match io::Error::last_os_error() {
        error if error.kind() == ErrorKind::Interrupted => Ok(()), // [signal]
        error => Err(failed_with(call, error)),
    }
}

/// Wakes the waiting thread, because the thread's queue watches a descriptor that this write makes readable.
#[allow(dead_code)] // kqueues with `EVFILT_USER` do not need it
pub(super) fn write(mut waker: impl Write + AsFd, bytes: &[u8]) -> io::Result<()> {
    let result = traced!(
        now: waker.write(bytes),
        "write(fd {}, {} bytes)",
        waker.as_fd().as_raw_fd(),
        bytes.len()
    );
    result
        .map(drop)
        .map_err(|error| failed_with("write", error))
}
