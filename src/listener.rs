//! The listener: `std`'s, with what a backend remembers of its registration.

use crate::{TcpStream, sys};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr, ToSocketAddrs};

/// A socket that waits for clients, and can be registered with a [`Poll`](crate::Poll).
///
/// It accepts like [`std::net::TcpListener`], and like that one it blocks unless
/// [`set_nonblocking`](TcpListener::set_nonblocking) says otherwise. Register it for
/// [`READABLE`](crate::Interests::READABLE): the event says that `accept` will not block now. The event is a hint,
/// because the client may leave before it is accepted; so a program that must not wait makes the listener non-blocking.
///
/// One `register` gives one event, however many clients wait. Accept one client and register again, or accept until
/// [`WouldBlock`](ErrorKind::WouldBlock) and register then. While the listener is not registered, clients wait in the
/// system's queue. Their own `connect` has succeeded already: see [the guide](crate::guide::ch12_listeners).
///
/// A listener belongs permanently to the first `Poll` it was registered with; the streams it accepts belong to none
/// yet. Dropping the listener cancels its registration.
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
    /// Listens at this address; port 0 lets the system choose one. Behaves like [`std::net::TcpListener::bind`], and
    /// returns the same errors. About 128 clients can wait to be accepted: see [the
    /// guide](crate::guide::ch12_listeners#the-client-is-connected-before-you-accept-it).
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        net::TcpListener::bind(addr).map(TcpListener::from)
    }

    /// Accepts a client. The stream is in blocking mode, whatever the mode of the listener, and belongs to no `Poll`
    /// yet.
    ///
    /// A client that has left before it was accepted does no harm. The system may return its stream, and then a read
    /// returns the error; or the system may report that a client has left, and then `accept` continues with the next
    /// one.
    ///
    /// On Windows, as with `std`, child programs may inherit the stream.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`]: there is no client, and the listener is in non-blocking mode.
    /// - Others come from the system, for example if there is no descriptor left. Then the client stays in the queue
    ///   and the listener stays readable, so a program that registers the listener again at once would spin. Register
    ///   the listener again after a connection was closed, or after a pause.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let listener = &self.0.inner;
            let result = traced!(
                listener.accept(),
                "accept({})",
                sys::trace::name_of(listener)
            );
            match result {
                // macOS and the BSDs say `ConnectionAborted`, Windows `ConnectionReset`, Wine `NotConnected`.
                Err(error) if LEFT.contains(&error.kind()) => (),
                Err(error) => return Err(error),
                Ok((stream, addr)) => {
                    // On Linux the new socket blocks. On macOS and Windows it inherits the mode of the listener.
                    if !cfg!(any(target_os = "linux", target_os = "android")) {
                        stream.set_nonblocking(false)?;
                    }
                    return Ok((TcpStream::from(stream), addr));
                }
            }
        }
    }

    /// The address on which it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.inner.local_addr()
    }

    /// Whether an [`accept`](TcpListener::accept) without a client returns [`WouldBlock`](ErrorKind::WouldBlock)
    /// (`true`) or waits (`false`, the default). The streams it accepts are not affected.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.inner.set_nonblocking(nonblocking)
    }

    /// Returns and clears the error that the system keeps for the next call, if there is one. Behaves like
    /// [`std::net::TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.inner.take_error()
    }
}

const LEFT: &[ErrorKind] = &[
    ErrorKind::ConnectionAborted,
    ErrorKind::ConnectionReset,
    ErrorKind::NotConnected,
];

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
