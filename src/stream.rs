//! The stream, `std`'s, and what a backend remembers of its registrations; and the connection that becomes a stream.

use crate::sys;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};

/// A TCP connection that can be registered with a [`Poll`](crate::Poll).
///
/// It reads and writes like [`std::net::TcpStream`], and as there it blocks until
/// [`set_nonblocking`](TcpStream::set_nonblocking) says otherwise. `Read` and `Write` are there for `&TcpStream` too,
/// so that one thread may read while another one writes.
///
/// It may be registered for [reading](crate::Interests::READABLE) and for [writing](crate::Interests::WRITABLE), and
/// the two know nothing of each other. Wait before reading, because usually there is nothing yet. Write before waiting,
/// because usually there is room: `Ok(n)` says that the system has taken n bytes, perhaps fewer than it was given, and
/// nothing about the peer. After [`WouldBlock`](io::ErrorKind::WouldBlock) register for writing, and go on after the
/// event. (`write_all` is for blocking streams: on `WouldBlock` it does not say how much it has written.)
///
/// It belongs to the first `Poll` it was registered with, for good. Dropping it takes its registrations back: no `poll`
/// that begins after that returns an event of it, even if a duplicate of its descriptor lives on. What a write has
/// accepted is sent all the same.
///
/// After a reset, the first read or write returns [`ConnectionReset`](io::ErrorKind::ConnectionReset), on every system;
/// later writes return [`BrokenPipe`](io::ErrorKind::BrokenPipe), or the same again. (If the peer had sent the end of
/// its stream before the reset, Linux says `BrokenPipe` from the beginning.)
///
/// # Platform differences
///
/// Read a registered stream through this type only. On Windows the system puts what arrives into a buffer of 4 KiB that
/// the stream lends to the kernel, where code that reads the raw socket does not see it. (Writing lends no data, so
/// this concerns reading alone.) While the buffer is lent:
///
/// - A blocking read ignores the read timeout that a `std` stream was given.
/// - To drop the stream or the loop cancels the receive. On Windows a cancellation ends [every receive of the
///   connection](https://github.com/dotnet/corefx/pull/34212), so a read that blocks on a duplicate of the stream may
///   fail with it.
/// - After a write that has timed out Windows [guarantees
///   nothing](https://learn.microsoft.com/windows/win32/winsock/sol-socket-socket-options): the receive may be
///   cancelled with it, and the next read returns that error.
///
/// On Windows a duplicate of a registered stream cannot be registered.
///
/// Windows does not report whether a socket is in non-blocking mode. So if a `std` stream was in that mode before it
/// became one of these, call `set_nonblocking(true)` again; otherwise a read that comes before the event waits for
/// data.
///
/// On Unix, a socket whose option `SO_RCVLOWAT` was raised is not readable, and has no event, until that many bytes
/// have arrived.
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
    /// Opens a connection; blocks until it is there. As [`std::net::TcpStream::connect`], errors included. It also
    /// resolves a name, which [`start_connect`](TcpStream::start_connect) does not.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        net::TcpStream::connect(addr).map(TcpStream::from)
    }

    /// Starts a connection, and returns at once. [Register](crate::Registrator::register) the connection for
    /// [`WRITABLE`](crate::Interests::WRITABLE), and call [`finish`](Connecting::finish) after the event.
    ///
    /// How long that takes is up to the system, and may be minutes: see [the
    /// guide](crate::guide::ch11_connecting#how-long-it-may-take). To give up sooner, drop the connection. Any thread
    /// may call this, for example the one that has resolved a name, which blocks on every system.
    ///
    /// # Errors
    ///
    /// Those of the system. Where the peer is on the same machine, a BSD may say here that the connection is refused.
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
    /// The event loop works either way, because an event says that a read, or a write of one byte, does not wait now.
    /// But a program that reads until it has everything may find that there is nothing *yet*, and one that writes much
    /// may find that there is no room left. A loop that serves many streams must not wait then.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }

    /// Ends reading, writing or both, while the stream stays open. As [`std::net::TcpStream::shutdown`].
    ///
    /// After reading was shut down, a read returns 0; after writing was, a write fails. In both cases a registration
    /// for that direction that waits gets its event, and each later one gets its event at once. On Windows, after
    /// reading was shut down, data that has arrived unread, or arrives later, [resets the
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

    /// The error that the system keeps for the next call, if there is one. Afterwards there is none. As
    /// [`std::net::TcpStream::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.inner.take_error()
    }

    /// Whether small writes are sent at once (`true`) or may wait a little for more (`false`, the default). As
    /// [`std::net::TcpStream::set_nodelay`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.inner.set_nodelay(nodelay)
    }
}

/// A connection that is being made, by [`TcpStream::start_connect`].
///
/// It is no stream yet, so that nothing can be read, written or asked before there is a connection. It can be
/// registered for [`WRITABLE`](crate::Interests::WRITABLE) only, and belongs to the first `Poll` it was registered
/// with. Dropping it gives the connection up, and no `poll` that begins after that returns an event of it.
pub struct Connecting(pub(crate) sys::Source<net::TcpStream>);

impl Connecting {
    /// The stream, which is in non-blocking mode. It belongs to the `Poll` with which the connection was registered.
    ///
    /// Call it after the event. If the connection is not there yet, it is given up. A registration that still waits
    /// goes on with the stream, and has its event.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`]: the connection was still being made.
    /// - The reason why there is no connection, such as [`ErrorKind::ConnectionRefused`], [`ErrorKind::TimedOut`],
    ///   [`ErrorKind::HostUnreachable`] or [`ErrorKind::NetworkUnreachable`].
    pub fn finish(self) -> io::Result<TcpStream> {
        // The reason is kept for one call. Calling `connect` again to ask would start another attempt on some systems.
        if let Some(reason) = self.0.inner.take_error()? {
            return Err(reason);
        }
        match self.0.inner.peer_addr() {
            Ok(_) => Ok(TcpStream(self.0)),
            // macOS may say `EINVAL`.
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
    /// After a reset a BSD returns `EPIPE`, and keeps the reason for the next call that asks. Linux and Windows return
    /// the reason.
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
