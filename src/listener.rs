//! The listener: `std`'s, and what a backend remembers of its registration.

use crate::{TcpStream, sys};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr, ToSocketAddrs};

/// A socket that waits for clients, and can be registered with a [`Poll`](crate::Poll).
///
/// It accepts like [`std::net::TcpListener`], and as there it blocks until
/// [`set_nonblocking`](TcpListener::set_nonblocking) says otherwise. Register it for
/// [`READABLE`](crate::Interests::READABLE): the event says that `accept` will not block now.
///
/// # Examples
///
/// ```
/// use minimio::{Events, Interests, Poll, TcpListener};
/// use std::io::ErrorKind;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// listener.set_nonblocking(true)?;
/// assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
///
/// let mut poll = Poll::new()?;
/// poll.registrator().register(&listener, 1, Interests::READABLE)?;
/// let client = std::net::TcpStream::connect(listener.local_addr()?)?;
/// poll.poll(&mut Events::with_capacity(8), None)?;
/// let (stream, addr) = listener.accept()?;
/// assert_eq!(addr, client.local_addr()?);
/// # std::io::Result::Ok(())
/// ```
pub struct TcpListener(pub(crate) sys::Source<net::TcpListener>);

impl TcpListener {
    /// Listens at this address; port 0 lets the system choose one. As [`std::net::TcpListener::bind`], errors included.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        net::TcpListener::bind(addr).map(TcpListener::from)
    }

    /// Accepts a client. The stream blocks, whatever the mode of the listener is.
    ///
    /// A client that has left before it was accepted is passed over.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`]: there is no client, and the listener is in non-blocking mode.
    /// - Others come from the system, for example if there is no descriptor left. The client then stays in the queue, and
    ///   the listener stays readable; so a program that registers it again at once would spin.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.0.inner.accept() {
                // Wine says `NotConnected`.
                Err(error) if LEFT.contains(&error.kind()) => (),
                Err(error) => return Err(error),
                Ok((stream, addr)) => {
                    // Linux makes a blocking socket. Other systems let it inherit the mode of the listener.
                    if !cfg!(any(target_os = "linux", target_os = "android")) {
                        stream.set_nonblocking(false)?;
                    }
                    return Ok((TcpStream::from(stream), addr));
                }
            }
        }
    }

    /// The address at which it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }

    /// Whether an [`accept`](TcpListener::accept) that finds no client returns [`WouldBlock`](ErrorKind::WouldBlock)
    /// (`true`) or waits (`false`, the default).
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.inner.set_nonblocking(nonblocking)
    }

    /// The error that the system keeps for the next call, if there is one. As [`std::net::TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.inner.take_error()
    }
}

const LEFT: [ErrorKind; 2] = [ErrorKind::ConnectionAborted, ErrorKind::NotConnected];

impl From<net::TcpListener> for TcpListener {
    fn from(inner: net::TcpListener) -> TcpListener {
        TcpListener(inner.into())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.inner.fmt(f)
    }
}
