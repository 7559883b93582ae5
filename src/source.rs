//! The sources, which can be registered.

use crate::sys::Selector;
use crate::{Connecting, Interests, TcpListener, TcpStream, Token};
use std::io;
use std::ops::Deref;

/// A type that can be [registered](crate::Registrator::register): [`TcpStream`], [`TcpListener`], [`Connecting`], and
/// any type that dereferences to one of these, such as a `Box`, an `Arc` or the guard of a lock.
///
/// The trait is sealed: other crates cannot implement it, because each backend must know the type of a source.
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
/// registrator.register(&stream, 3, Interests::WRITABLE)?; // the other direction as well
/// # std::io::Result::Ok(())
/// ```
pub trait Source: sealed::Source {}

impl<T: sealed::Source> Source for T {}

pub mod sealed {
    use super::*;

    pub trait Source {
        /// Refuses a direction that the source does not have.
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
