//! The listener: `std`'s, and what a backend remembers of its registration.

use crate::{TcpStream, sys};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{self, SocketAddr, ToSocketAddrs};

/// A socket that waits for clients, and can be registered with a [`Poll`](crate::Poll).
///
/// It accepts like [`std::net::TcpListener`], and as there it blocks until
/// [`set_nonblocking`](TcpListener::set_nonblocking) says otherwise. Register it for
/// [`READABLE`](crate::Interests::READABLE): the event says that `accept` will not block now. It is a hint, because the
/// client may leave before it is accepted; so a program that must not wait makes the listener non-blocking.
///
/// One `register` gives one event, however many clients wait. Accept one client and register again, or accept until
/// [`WouldBlock`](ErrorKind::WouldBlock) and register then; while the listener is not registered, clients wait in the
/// system's queue. They have connected already, as far as they know: see [the guide](crate::guide::ch12_listeners).
///
/// It belongs to the first `Poll` it was registered with, for good; what it accepts belongs to none yet. Dropping it
/// takes its registration back.
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
    /// There is room for 128 clients that wait, if the system allows as many.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        net::TcpListener::bind(addr).map(TcpListener::from)
    }

    /// Accepts a client. The stream blocks, whatever the mode of the listener is, and belongs to no `Poll` yet.
    ///
    /// A client that has left before it was accepted does no harm. The system may hand it out, and then a read says so;
    /// or say that it has left, and then it is passed over.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::WouldBlock`]: there is no client, and the listener is in non-blocking mode.
    /// - Others come from the system, for example if there is no descriptor left. The client then stays in the queue,
    ///   and the listener stays readable; so a program that registers it again at once would spin. Register it again
    ///   after a connection was closed, or after a pause.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let listener = &self.0.inner;
            let result = traced!(
                listener.accept(),
                "accept({})",
                sys::trace::name_of(listener)
            );
            match result {
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
    /// (`true`) or waits (`false`, the default). What it accepts is not concerned.
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
