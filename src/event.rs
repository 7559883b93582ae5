//! The input of the loop, a token and an interest, and its output, events.

use crate::sys;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::slice;

/// The number that the user passes to [`register`](crate::Registrator::register) and gets back in the [`Event`].
///
/// The library reserves no value: 0 and `usize::MAX` are tokens like any other. Two sources may share a token, and so
/// may the two directions of a stream.
pub type Token = usize;

/// The direction to wait for. To wait for both, register twice: the two registrations are independent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interests(u8);

impl Interests {
    /// A read will not block: there is data, or the end of the stream, or an error to collect. For a listener: `accept`
    /// will not block. A [`Connecting`](crate::Connecting) is never readable.
    pub const READABLE: Interests = Interests(0b01);

    /// A write of at least one byte will not block, or it will fail at once because the connection is broken. Room in
    /// the send buffer says nothing about what the peer has received. For a [`Connecting`](crate::Connecting):
    /// connecting has succeeded or failed. A listener is never writable.
    ///
    /// There is nearly always room. So write first, and wait only when a write has returned
    /// [`WouldBlock`](std::io::ErrorKind::WouldBlock).
    pub const WRITABLE: Interests = Interests(0b10);

    /// Whether this is [`READABLE`](Interests::READABLE).
    pub fn is_readable(self) -> bool {
        self.0 & Interests::READABLE.0 != 0
    }

    /// Whether this is [`WRITABLE`](Interests::WRITABLE).
    pub fn is_writable(self) -> bool {
        self.0 & Interests::WRITABLE.0 != 0
    }
}

impl fmt::Debug for Interests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_readable() {
            true => "READABLE",
            false => "WRITABLE",
        })
    }
}

/// The answer to one [`register`](crate::Registrator::register): the source is ready in the direction asked for.
///
/// An event is a hint to try. Only trying shows whether there is data, the end of the stream or an error; and if
/// another thread has read, written or accepted in the meantime, there may be nothing left, or no room, or no client.
// On Unix an event is laid out as the system's own struct, so that the kernel can write into the user's `Events`.
#[repr(transparent)]
pub struct Event(pub(crate) sys::RawEvent);

impl Event {
    /// The token that was passed to `register`.
    pub fn id(&self) -> Token {
        self.0.token()
    }

    /// Whether the registration asked for [`READABLE`](Interests::READABLE). If not, it asked for
    /// [`WRITABLE`](Interests::WRITABLE).
    pub fn is_readable(&self) -> bool {
        !self.is_writable()
    }

    /// Whether the registration asked for [`WRITABLE`](Interests::WRITABLE). If not, it asked for
    /// [`READABLE`](Interests::READABLE).
    pub fn is_writable(&self) -> bool {
        self.0.is_writable()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interests = match self.is_writable() {
            true => Interests::WRITABLE,
            false => Interests::READABLE,
        };
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("interests", &interests)
            .finish()
    }
}

/// A buffer for the events of one [`poll`](crate::Poll::poll), to be reused for the next. It dereferences to a slice.
///
/// ```
/// let mut events = minimio::Events::with_capacity(1024);
/// minimio::Poll::new()?.poll(&mut events, Some(0))?;
/// assert!(events.is_empty());
/// for event in &events {
///     println!("{}: {}", event.id(), if event.is_writable() { "has room" } else { "can be read" });
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Events(pub(crate) Vec<Event>);

impl Events {
    /// Larger capacities are reduced to this one: an allocation that fails would abort the program, and the next `poll`
    /// returns the events that did not fit.
    const MAX_CAPACITY: usize = 1 << 20;

    /// Room for `capacity` events, but at most 1,048,576. One [`poll`](crate::Poll::poll) returns no more than that;
    /// the next one returns the others.
    pub fn with_capacity(capacity: usize) -> Events {
        Events(Vec::with_capacity(capacity.min(Events::MAX_CAPACITY)))
    }
}

impl Deref for Events {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        &self.0
    }
}

impl DerefMut for Events {
    fn deref_mut(&mut self) -> &mut [Event] {
        &mut self.0
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = slice::Iter<'a, Event>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
