//! The source: one of `std`'s sockets, and its operations.

use super::super::error::belongs_to_another;
use super::super::recv_vectored;
use super::operation::Operation;
use super::{MAX_PACKETS, Selector, associate_with_port, ffi, lock};
use crate::Interests;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

pub struct Source<S: AsRawSocket> {
    pub inner: S,
    /// A read needs to know the mode, and Windows has no call that returns it.
    is_nonblocking: AtomicBool,
    /// The selector to whose port the socket belongs, from the first registration on.
    selector: OnceLock<Weak<Selector>>,
    pub(super) to_read: Arc<Operation>,
    /// Allocated by the first registration for writing, or by a `shutdown` of writing, which it remembers.
    to_write: OnceLock<Arc<Operation>>,
}

impl<S: AsRawSocket> Source<S> {
    fn new(inner: S, to_read: fn(RawSocket) -> Arc<Operation>) -> Source<S> {
        Source {
            to_read: to_read(inner.as_raw_socket()),
            inner,
            is_nonblocking: AtomicBool::new(false),
            selector: OnceLock::new(),
            to_write: OnceLock::new(),
        }
    }

    /// Makes the source belong to this selector, or fails if it belongs to another one.
    pub(super) fn attach(&self, selector: &Selector) -> io::Result<()> {
        // Because of this lock, only one thread at a time attaches sources to this selector. If another selector was
        // first, the system refuses.
        let _one_at_a_time = lock(&selector.operations);
        if self.selector.get().is_none() {
            associate_with_port(self.inner.as_raw_socket(), &selector.port)?; // [first]
        }
        let mine = self.selector.get_or_init(|| selector.me.clone());
        // [own]
        match mine.ptr_eq(&selector.me) {
            true => Ok(()),
            false => Err(belongs_to_another()),
        }
    }

    pub(super) fn to_write(&self) -> &Arc<Operation> {
        self.to_write
            .get_or_init(|| Operation::asking(self.inner.as_raw_socket(), Interests::WRITABLE))
    }

    fn selector(&self) -> Option<Arc<Selector>> {
        self.selector.get().and_then(Weak::upgrade)
    }
}

impl<S: AsRawSocket> Drop for Source<S> {
    fn drop(&mut self) {
        // `inner` is closed after this, so the operations can still use the socket.
        self.to_read.retire(); // [take-back]
        if let Some(to_write) = self.to_write.get() {
            to_write.retire();
        }
        traced_close!(self.inner);
    }
}

impl From<TcpListener> for Source<TcpListener> {
    fn from(inner: TcpListener) -> Source<TcpListener> {
        let to_accept = |socket| Operation::asking(socket, Interests::READABLE);
        Source::new(inner, to_accept)
    }
}

impl From<TcpStream> for Source<TcpStream> {
    fn from(inner: TcpStream) -> Source<TcpStream> {
        Source::new(inner, Operation::receiving)
    }
}

impl Source<TcpStream> {
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)?;
        self.is_nonblocking.store(nonblocking, SeqCst);
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)?;
        // Otherwise the operations would keep waiting for the peer.
        if how != Shutdown::Write {
            self.to_read.cancel();
            self.to_read.start_deferred(self.selector().as_deref());
        }
        if how != Shutdown::Read {
            self.to_write().cancel();
        }
        Ok(())
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    /// Reads from the buffer, and if the buffer is empty, from the socket.
    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0); // on Windows, a receive into an empty buffer may wait
        }
        loop {
            match self.to_read.read_buffer(bufs) {
                Ok(Some(n)) => return Ok(n),
                Ok(None) => break,
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock && self.get_buffer_back()? => {}
                Err(error) => return Err(error),
            }
        }
        let result = recv_vectored(&self.inner, bufs);
        self.to_read.end_direct_read();
        // Looked up only now, because the source may have been registered for the first time during the read.
        self.to_read.start_deferred(self.selector().as_deref());
        result
    }

    /// Returns whether the read should try the buffer again. Dequeues packets itself, because perhaps no thread is in
    /// `select`, and waits for them if the stream blocks.
    fn get_buffer_back(&self) -> io::Result<bool> {
        let (to_read, mut n) = (&self.to_read, 0);
        let blocks = !self.is_nonblocking.load(SeqCst);
        let timeout_ms = if blocks { ffi::INFINITE } else { 0 };
        if let Some(selector) = self.selector() {
            let inbox = lock(&selector.inbox);
            if to_read.holds_up_reads() {
                n = selector.dequeue(inbox, timeout_ms)?.1;
            }
        } else {
            // The loop is being dropped. Lent buffers come back soon, and deferred receives will not start.
            to_read.forget_deferred();
            thread::yield_now();
        }
        // If the call has dequeued as many packets as it can, there may be more behind them.
        Ok(blocks || n == MAX_PACKETS || !to_read.holds_up_reads())
    }
}

macro_rules! as_socket {
    ($($source:ty),*) => {$(
        impl AsSocket for $source {
            fn as_socket(&self) -> BorrowedSocket<'_> {
                self.0.inner.as_socket()
            }
        }

        impl AsRawSocket for $source {
            fn as_raw_socket(&self) -> RawSocket {
                self.0.inner.as_raw_socket()
            }
        }
    )*};
}

as_socket!(crate::TcpStream, crate::TcpListener, crate::Connecting);
