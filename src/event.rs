//! What goes into the loop, a token and an interest, and what comes out of it, events.

use crate::sys;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::slice;

/// The number that [`register`](crate::Registrator::register) is given and that comes back in the [`Event`].
///
/// To the library it means nothing: every value, 0 and `usize::MAX` included, is the user's. Two sources may share one,
/// and so may the two directions of a stream.
pub type Token = usize;

/// What to wait for: one direction. To wait for both, register twice: neither registration knows of the other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Interests(u8);

impl Interests {
    /// A read will not block: there is data, or the end of the stream, or an error to collect. Of a listener: `accept`
    /// will not block. A [`Connecting`](crate::Connecting) is never readable.
    pub const READABLE: Interests = Interests(0b01);

    /// A write of at least one byte will not block, or it will fail at once because the connection is broken. That
    /// there is room says nothing about what the peer has received. Of a [`Connecting`](crate::Connecting): connecting
    /// has ended, well or badly. A listener is never writable.
    ///
    /// There is room nearly always. So write first, and wait only when a write has returned
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

/// The answer to one [`register`](crate::Registrator::register): what was asked for is possible now.
///
/// It is a hint to try. Only trying shows whether there is data, the end of the stream or an error; and if another
/// thread has read, written or accepted in the meantime, there may be nothing left, or no room, or no client.
// On Unix it is laid out as the system's own struct, so that the system can write into the user's `Events`.
#[repr(transparent)]
pub struct Event(pub(crate) sys::RawEvent);

impl Event {
    /// The token that was given with the registration.
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

/// Room for the events of one [`poll`](crate::Poll::poll), to be reused for the next. It reads like a slice.
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
    /// Larger capacities are reduced to this one. To allocate more could end the program, and events that do not fit
    /// come with the next poll anyway.
    const MAX_CAPACITY: usize = 1 << 20;

    /// Room for `capacity` events, and for 1,048,576 at most. One [`poll`](crate::Poll::poll) brings no more than
    /// that; others that are ready come with the next one.
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
