//! The stream: `std`'s, with what a backend remembers of its registrations. And the connection that becomes a stream.

use crate::sys;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};

/// A TCP connection that can be registered with a [`Poll`](crate::Poll).
///
/// It reads and writes like [`std::net::TcpStream`], and like that one it blocks unless
/// [`set_nonblocking`](TcpStream::set_nonblocking) says otherwise. `&TcpStream` implements `Read` and `Write` too, so
/// that one thread can read while another one writes.
///
/// It may be registered for [reading](crate::Interests::READABLE) and for [writing](crate::Interests::WRITABLE); the
/// two registrations are independent. Wait before reading, because usually there is nothing yet. Write before waiting,
/// because usually there is room: `Ok(n)` says that the system has accepted n bytes, perhaps fewer than it was given,
/// and says nothing about the peer. After [`WouldBlock`](io::ErrorKind::WouldBlock) register for writing, and continue
/// after the event. (`write_all` is for blocking streams: on `WouldBlock` it does not say how much it has written.)
///
/// A stream belongs permanently to the first `Poll` it was registered with. Dropping the stream cancels its
/// registrations: no `poll` that begins afterwards returns an event of this stream, even if a duplicate of its
/// descriptor is still open. Bytes that a write has accepted are still sent.
///
/// After a reset, the first write returns [`ConnectionReset`](io::ErrorKind::ConnectionReset), on every system, and so
/// does the first read, unless an earlier call (a read, a write or `take_error`) has already returned the error. Bytes
/// that had arrived before the reset may be read first. Once a call has returned the error, writes return
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe), or the same again. (If the peer had sent the end of its stream before the
/// reset, then on Linux a write returns `BrokenPipe` from the beginning, and a read returns 0.)
///
/// # Platform differences
///
/// Read a registered stream through this type only. On Windows the kernel puts data that arrives into a buffer of 4 KiB
/// that the stream lends it, and code that reads the raw socket does not see this data. (Writing lends no buffer.)
/// While the buffer is lent:
///
/// - A blocking read ignores the read timeout that a `std` stream was given.
/// - Dropping the stream or the loop cancels the receive. On Windows a cancellation ends [every receive of the
///   connection](https://github.com/dotnet/corefx/pull/34212), so the cancellation may also end a read that blocks on
///   a duplicate of the stream, with an error.
/// - After a write that has timed out, Windows [guarantees
///   nothing](https://learn.microsoft.com/windows/win32/winsock/sol-socket-socket-options): the receive may be
///   cancelled with it, and the next read returns that error.
///
/// On Windows a duplicate of a registered stream cannot be registered.
///
/// Windows does not report whether a socket is in non-blocking mode. So if a `std` stream was in that mode before the
/// conversion, call `set_nonblocking(true)` again; otherwise a read before the event waits for data.
///
/// On Unix, a socket whose option `SO_RCVLOWAT` was raised becomes readable only when that many bytes have arrived.
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
pub struct TcpStream(pub(crate) sys::Source<net::TcpStream>);

impl TcpStream {
    /// Opens a connection, and blocks until it is established or has failed. Behaves like
    /// [`std::net::TcpStream::connect`], and returns the same errors. It also looks up names, which
    /// [`start_connect`](TcpStream::start_connect) does not.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        net::TcpStream::connect(addr).map(TcpStream::from)
    }

    /// Starts a connection, and returns at once. [Register](crate::Registrator::register) the connection for
    /// [`WRITABLE`](crate::Interests::WRITABLE), and call [`finish`](Connecting::finish) after the event.
    ///
    /// The system decides how long connecting may take, which can be minutes: see [the
    /// guide](crate::guide::ch11_connecting#how-long-it-may-take). To give up sooner, drop the connection. Any thread
    /// may call `start_connect`, for example a thread that looks up names, because `std`'s lookup blocks.
    ///
    /// # Errors
    ///
    /// Those of the system; the error's number is in its source, as with [`Poll::new`](crate::Poll::new). If the peer
    /// is on the same machine, macOS or a BSD may return `ConnectionRefused` here already.
    ///
    /// # Examples
    ///
    /// ```
    /// use minimio::{Events, Interests, Poll, TcpListener, TcpStream};
    /// use std::io::Write;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let mut poll = Poll::new()?;
    /// let mut events = Events::with_capacity(8);
    ///
    /// let connecting = TcpStream::start_connect(listener.local_addr()?)?;
    /// poll.registrator().register(&connecting, 1, Interests::WRITABLE)?;
    /// poll.poll(&mut events, None)?;
    /// let mut stream = connecting.finish()?;
    /// stream.write_all(b"hello")?; // a non-blocking stream, but there is room for five bytes
    /// # std::io::Result::Ok(())
    /// ```
    pub fn start_connect(addr: SocketAddr) -> io::Result<Connecting> {
        sys::start_connect(addr).map(Connecting)
    }

    /// Whether a read that finds nothing, or a write that finds no room, returns
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) (`true`) or waits (`false`, the default).
    ///
    /// The event loop works in both modes, because an event says that a read, or a write of one byte, will not wait.
    /// But a program that reads until it has everything may find that there is nothing *yet*, and one that writes much
    /// may find that there is no room left. A loop that serves many streams must not wait then, so it needs the
    /// non-blocking mode.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Ends reading, writing or both, while the stream stays open. Behaves like [`std::net::TcpStream::shutdown`].
    ///
    /// After reading was shut down, a read does not wait: it returns 0. On some systems, such as Linux, reads first
    /// return the data that has already arrived, and only then 0. After writing was shut down, a write fails. In both
    /// cases a registration that waits in that direction gets its event, and each later one gets its event at once.
    ///
    /// On Windows, a read that waits already may [go on waiting](https://github.com/rust-lang/rust/issues/121594), as
    /// `std`'s does, if the stream's buffer was not lent when the read began. (This is possible even for a registered
    /// stream: after a read has taken the data that had arrived, the stream lends the buffer again only in `poll`.) And
    /// after reading was shut down, data that has arrived unread, or arrives later, [resets the
    /// connection](https://learn.microsoft.com/windows/win32/api/winsock/nf-winsock-shutdown).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// The address of this end of the connection.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }

    /// The address of the peer's end of the connection.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.peer_addr()
    }

    /// Returns and clears the error that the system keeps for the next call, if there is one. Behaves like
    /// [`std::net::TcpStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.inner.take_error()
    }

    /// Whether small writes are sent at once (`true`) or may wait briefly for more data (`false`, the default). Behaves
    /// like [`std::net::TcpStream::set_nodelay`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.inner.set_nodelay(nodelay)
    }
}

/// A connection that is being made, by [`TcpStream::start_connect`].
///
/// This type has no `read`, `write` or `peer_addr`, because there is no connection yet. It can be registered for
/// [`WRITABLE`](crate::Interests::WRITABLE) only, and belongs to the first `Poll` it was registered with. Dropping it
/// abandons the attempt, and no `poll` that begins afterwards returns an event of it.
pub struct Connecting(pub(crate) sys::Source<net::TcpStream>);

impl Connecting {
    /// Returns the stream, in non-blocking mode. The stream belongs to the `Poll` with which the connection was
    /// registered.
    ///
    /// Call `finish` after the event. Before the connection is established, `finish` fails and abandons the
    /// attempt. If `finish` succeeds, a registration that still waits passes to the stream, and gets its event.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`]: the connection was not established yet.
    /// - The reason why connecting failed, such as [`ErrorKind::ConnectionRefused`], [`ErrorKind::TimedOut`],
    ///   [`ErrorKind::HostUnreachable`] or [`ErrorKind::NetworkUnreachable`].
    pub fn finish(self) -> io::Result<TcpStream> {
        // The system keeps the reason for one call. A second `connect` would start another attempt on some systems.
        if let Some(reason) = self.0.inner.take_error()? {
            return Err(reason);
        }
        match self.0.inner.peer_addr() {
            Ok(_) => Ok(TcpStream(self.0)),
            // Not established yet: `ENOTCONN`, or on macOS perhaps `EINVAL`.
            Err(error)
                if [ErrorKind::NotConnected, ErrorKind::InvalidInput].contains(&error.kind()) =>
            {
                Err(ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.inner.fmt(f)
    }
}

impl TcpStream {
    /// After a reset, a write on macOS or a BSD returns `EPIPE`, and the system keeps the reason. On Linux and Windows
    /// the write returns the reason itself.
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
        TcpStream(inner.into())
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
        let mut stream = &self.0.inner;
        let result = traced!(
            stream.write(buf),
            "send({}, {} bytes)",
            sys::trace::name_of(stream),
            buf.len()
        );
        self.reason(result)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = &self.0.inner;
        let result = traced!(
            stream.write_vectored(bufs),
            "{}({}, {} bytes)",
            if cfg!(windows) { "WSASend" } else { "writev" },
            sys::trace::name_of(stream),
            bufs.iter().map(|buf| buf.len()).sum::<usize>()
        );
        self.reason(result)
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
