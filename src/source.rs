//! What can be registered.

use crate::sys::Selector;
use crate::{Connecting, Interests, TcpListener, TcpStream, Token};
use std::io;
use std::ops::Deref;

/// What can be [registered](crate::Registrator::register): a [`TcpStream`], a [`TcpListener`], a [`Connecting`], and
/// whatever dereferences to one of these, such as a `Box`, an `Arc` or the guard of a lock.
///
/// This trait is sealed: it cannot be implemented elsewhere, because a backend has to know what it is given.
///
/// ```
/// use minimio::{Interests, Poll, TcpListener, TcpStream};
/// use std::sync::Arc;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = Arc::new(TcpStream::connect(listener.local_addr()?)?);
/// let poll = Poll::new()?;
/// let registrator = poll.registrator();
/// registrator.register(&listener, 1, Interests::READABLE)?;
/// registrator.register(&stream, 2, Interests::READABLE)?;
/// registrator.register(&stream, 3, Interests::WRITABLE)?; // the other direction, besides
/// # std::io::Result::Ok(())
/// ```
pub trait Source: sealed::Source {}

impl<T: sealed::Source> Source for T {}

pub mod sealed {
    use super::*;

    pub trait Source {
        /// Refuses a direction for which there is nothing to wait.
        fn register(&self, to: &Selector, token: Token, interests: Interests) -> io::Result<()>;
    }
}

impl sealed::Source for TcpStream {
    fn register(&self, to: &Selector, token: Token, interests: Interests) -> io::Result<()> {
        to.register(&self.0, token, interests)
    }
}

impl sealed::Source for TcpListener {
    fn register(&self, to: &Selector, token: Token, interests: Interests) -> io::Result<()> {
        match interests.is_readable() {
            true => to.register(&self.0, token, interests),
            false => Err(refused("a listener is never WRITABLE")),
        }
    }
}

impl sealed::Source for Connecting {
    fn register(&self, to: &Selector, token: Token, interests: Interests) -> io::Result<()> {
        match interests.is_writable() {
            true => to.register(&self.0, token, interests),
            false => Err(refused("a connection that is being made is never READABLE")),
        }
    }
}

impl<T: Deref<Target: sealed::Source>> sealed::Source for T {
    fn register(&self, to: &Selector, token: Token, interests: Interests) -> io::Result<()> {
        self.deref().register(to, token, interests)
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}
