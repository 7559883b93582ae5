//! What the two readiness backends, epoll and kqueue, share: the stream. The kernel says *when* to read it, and moves no
//! byte before we do, so it is `std`'s stream that remembers where it is registered.

use super::Selector;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, Shutdown, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{OnceLock, Weak};

/// A TCP connection that can be registered with a [`Poll`](crate::Poll).
///
/// It reads and writes like [`std::net::TcpStream`], and as there it blocks until
/// [`set_nonblocking`](TcpStream::set_nonblocking) says otherwise. `Read` and `Write` are there for `&TcpStream` too, so
/// that one thread may read while another one writes.
///
/// It belongs to the first `Poll` it was registered with, for good. Dropping it takes its registration back: no event
/// comes for a stream that is gone, even if a duplicate of its descriptor lives on.
///
/// # Platform differences
///
/// A registered stream should be read through this type only. On Windows the system puts what arrives into a buffer
/// that the stream lends it, where whoever reads the raw socket does not see it.
///
/// # Examples
///
/// ```
/// use minimio::TcpStream;
/// use std::io::{Read, Write};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let mut stream = TcpStream::connect(listener.local_addr()?)?;
/// listener.accept()?.0.write_all(b"good morning")?;
///
/// let mut text = String::new();
/// stream.read_to_string(&mut text)?;
/// assert_eq!(text, "good morning");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct TcpStream {
    inner: net::TcpStream,
    selector: OnceLock<Weak<Selector>>,
}

impl TcpStream {
    /// Opens a connection; blocks until it is there. As [`std::net::TcpStream::connect`], errors included.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        net::TcpStream::connect(addr).map(TcpStream::from)
    }

    /// Whether a read that finds nothing returns [`ErrorKind::WouldBlock`] (`true`) or waits (`false`, as at first).
    ///
    /// The event loop works either way: its events tell when a read will not wait. But a program that reads until it has
    /// everything meets the moment where there is nothing *yet*, and a loop that serves many streams must not wait there.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)
    }

    /// Ends reading, writing or both, while the stream stays open. As [`std::net::TcpStream::shutdown`].
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)
    }

    /// Whether `join` was called with this selector before.
    pub(super) fn belongs_to(&self, selector: &Weak<Selector>) -> bool {
        self.selector
            .get()
            .is_some_and(|mine| mine.ptr_eq(selector))
    }

    /// Makes this selector the stream's own, if it has none.
    #[cold]
    pub(super) fn join(&self, selector: &Weak<Selector>) -> io::Result<()> {
        match self
            .selector
            .get_or_init(|| selector.clone())
            .ptr_eq(selector)
        {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the stream was registered with another Poll before",
            )),
        }
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        // `inner` is closed after this, so its descriptor number is still ours.
        if let Some(selector) = self.selector.get().and_then(Weak::upgrade) {
            selector.deregister(self);
        }
    }
}

impl From<net::TcpStream> for TcpStream {
    fn from(inner: net::TcpStream) -> TcpStream {
        let selector = OnceLock::new();
        TcpStream { inner, selector }
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.inner).read(buf)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.inner).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.inner).flush()
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}
