//! The stream: `std`'s, and what a backend remembers of its registration.

use crate::sys;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, ToSocketAddrs};

/// A TCP connection that can be registered with a [`Poll`](crate::Poll).
///
/// It reads and writes like [`std::net::TcpStream`], and as there it blocks until
/// [`set_nonblocking`](TcpStream::set_nonblocking) says otherwise. `Read` and `Write` are there for `&TcpStream` too,
/// so that one thread may read while another one writes.
///
/// It belongs to the first `Poll` it was registered with, for good. Dropping it takes its registration back: no `poll`
/// that begins after that returns an event of it, even if a duplicate of its descriptor lives on.
///
/// # Platform differences
///
/// Read a registered stream through this type only. On Windows the system puts what arrives into a buffer of 4 KiB that
/// the stream lends to the kernel, where code that reads the raw socket does not see it. While the buffer is lent:
///
/// - A blocking read ignores the read timeout that a `std` stream was given.
/// - To drop the stream or the loop cancels the receive. On Windows a cancellation ends [every receive of the
///   connection](https://github.com/dotnet/corefx/pull/34212), so a read that blocks on a duplicate of the stream may fail
///   with it.
/// - After a write that has timed out Windows [guarantees
///   nothing](https://learn.microsoft.com/windows/win32/winsock/sol-socket-socket-options): the receive may be cancelled
///   with it, and the next read returns that error.
///
/// On Windows a duplicate of a registered stream cannot be registered.
///
/// Windows does not report whether a socket is in non-blocking mode. So if a `std` stream was in that mode before it
/// became one of these, call `set_nonblocking(true)` again; otherwise a read that comes before the event waits for
/// data.
///
/// On Unix, a socket whose option `SO_RCVLOWAT` was raised is not readable, and has no event, until that many bytes have
/// arrived.
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
pub struct TcpStream(pub(crate) sys::TcpStream);

impl TcpStream {
    /// Opens a connection; blocks until it is there. As [`std::net::TcpStream::connect`], errors included.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        net::TcpStream::connect(addr).map(TcpStream::from)
    }

    /// Whether a read that finds nothing returns [`WouldBlock`](io::ErrorKind::WouldBlock) (`true`) or waits (`false`,
    /// the default).
    ///
    /// The event loop works either way, for an event says that a read does not wait now. But a program that reads until it
    /// has everything may find that there is nothing *yet*, and a loop that serves many streams must not wait then.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Ends reading, writing or both, while the stream stays open. As [`std::net::TcpStream::shutdown`].
    ///
    /// After reading was shut down, a read returns 0, and a registration that waits gets its event. On Windows, data that
    /// has arrived unread, or arrives later, [resets the
    /// connection](https://learn.microsoft.com/windows/win32/api/winsock/nf-winsock-shutdown).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }
}

impl TcpStream {
    /// After a reset a BSD returns `EPIPE`, and keeps the reason for the next call that asks. Linux and Windows return the
    /// reason.
    fn reason(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(self.0.inner.take_error()?.unwrap_or(error))
            }
            result => result,
        }
    }
}

impl From<net::TcpStream> for TcpStream {
    fn from(inner: net::TcpStream) -> TcpStream {
        TcpStream(sys::TcpStream::new(inner))
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.inner.fmt(f)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.0.read_vectored(bufs)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.reason((&self.0.inner).write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.reason((&self.0.inner).write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0.inner).flush()
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}
