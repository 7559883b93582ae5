//! The loop, and the way into it from other threads. Nothing here depends on the operating system.
//!
//! A word in brackets in a comment marks a step to which the [guide](crate::guide::ch4_life#the-marks) refers.

use crate::sys::Selector;
use crate::{Events, Interests, Source, Token};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An event loop: one thread waits in [`poll`](Poll::poll) while others [`register`](Registrator::register) sources:
/// streams, listeners, and connections that are being made.
///
/// It is a queue of the operating system: epoll on Linux and Android (two of them, one in the other), kqueue on macOS,
/// iOS and the BSDs, an I/O completion port on Windows. The queue is given back to the system when the `Poll` and all
/// its [`Registrator`]s are dropped. Sources need not be dropped first, and do not keep the queue open. (On Windows, a
/// read that waits for the data of a registered stream keeps the queue open until the read returns. After our handle
/// was closed, the kernel keeps the port until the sockets that belong to the port are closed.)
///
/// # After `fork`
///
/// A child process made by `fork` must not use or drop what belongs to its parent's loop. On Linux both processes share
/// one queue: a `register` in the child edits the parent's registrations, a `poll` takes the parent's events, and
/// dropping a source cancels the parent's registrations of that source. Only `close_loop` affects the child alone. On
/// macOS and the BSDs the child has no queue at all, and its calls fail or reach an unrelated descriptor. So the child
/// should call `exec`, as [`std::process::Command`] does, or `_exit`: neither drops anything, and `exec` closes the
/// queue. A child that continues must make its own `Poll` and its own sources.
/// ([epoll(7)](https://man7.org/linux/man-pages/man7/epoll.7.html),
/// [kqueue(2)](https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2))
pub struct Poll {
    registrator: Registrator,
}

impl Poll {
    /// Makes an event loop.
    ///
    /// # Errors
    ///
    /// The system's error, if there is no descriptor or no memory left. [`ErrorKind::Unsupported`] on a kqueue without
    /// `EV_RECEIPT`: macOS has had this flag since 10.5 and FreeBSD since 8.1, while NetBSD and DragonFly
    /// [still lacked it at the end of 2015](https://github.com/facebookarchive/fb-adb/issues/38).
    ///
    /// An error of the system says which call failed, here, in all other functions of `Poll` and [`Registrator`], and
    /// in [`start_connect`](crate::TcpStream::start_connect). Its number is therefore not in the error itself, but in
    /// the error's source:
    ///
    /// ```
    /// fn os_error(error: &std::io::Error) -> Option<i32> {
    ///     let source = std::error::Error::source(error)?;
    ///     source.downcast_ref::<std::io::Error>()?.raw_os_error()
    /// }
    /// # let mut poll = minimio::Poll::new()?;
    /// # let none = poll.poll(&mut minimio::Events::with_capacity(0), None).unwrap_err();
    /// # assert!(os_error(&none).is_none_or(|number| number == 22)); // not every system is asked
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> io::Result<Poll> {
        let registrator = Registrator {
            selector: Selector::new()?,
            closing: Arc::default(),
        };
        Ok(Poll { registrator })
    }

    /// A handle to register sources with, in this thread or in another one.
    pub fn registrator(&self) -> Registrator {
        self.registrator.clone()
    }

    /// Waits until there is at least one event or `timeout_ms` milliseconds have passed, and replaces the contents of
    /// `events` with the new events. Returns their number.
    ///
    /// `None` waits without a limit; 0 and negative numbers do not wait. `Ok(0)` means that the timeout has expired,
    /// and nothing else: a timeout never ends early, and signals do not end it. If more events are ready than `events`
    /// has [room](Events::with_capacity) for, the next call returns the others. Even with room for one event, neither
    /// direction starves the other.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Interrupted`]: the loop was [closed](Registrator::close_loop), before or during the call.
    /// - [`ErrorKind::InvalidInput`]: `events` has a capacity of 0.
    /// - Others come from the system. After any error, `events` is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use minimio::{Events, Poll};
    /// use std::io::ErrorKind;
    ///
    /// let mut poll = Poll::new()?;
    /// let mut events = Events::with_capacity(8);
    /// assert_eq!(poll.poll(&mut events, Some(10))?, 0); // nothing is registered, and ten milliseconds have passed
    ///
    /// poll.registrator().close_loop()?;
    /// assert_eq!(poll.poll(&mut events, None).unwrap_err().kind(), ErrorKind::Interrupted);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn poll(&mut self, events: &mut Events, timeout_ms: Option<i32>) -> io::Result<usize> {
        let Registrator { selector, closing } = &self.registrator;
        let mut left_ms = timeout_ms.map(|ms| ms.max(0));
        // A wait of 0 does not wait, so it needs no clock.
        let started = left_ms.filter(|ms| *ms > 0).map(|_| Instant::now());
        loop {
            let result = selector.select(&mut events.0, left_ms);
            // Closing takes precedence over any error, and over events.
            if closing.is_closed() {
                events.0.clear();
                return Err(closed());
            }
            result?;
            if !events.is_empty() {
                return Ok(events.len());
            }
            // [clock] Either the timeout has expired, or the wait has ended early: because of a signal, a coarse clock,
            // or a source that was dropped or is no longer ready. Then wait again for the remaining time.
            if let (Some(timeout_ms), Some(started)) = (timeout_ms, started) {
                left_ms = Some(remaining_ms(timeout_ms, started));
            }
            if left_ms == Some(0) {
                return Ok(0);
            }
        }
    }
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").finish_non_exhaustive()
    }
}

/// Rounds up. Rounded down, the last fraction of a millisecond would become 0, and the wait would end early.
#[cold]
fn remaining_ms(timeout_ms: i32, started: Instant) -> i32 {
    let remaining = Duration::from_millis(timeout_ms as u64).saturating_sub(started.elapsed());
    remaining.as_nanos().div_ceil(1_000_000) as i32
}

impl Drop for Poll {
    /// No thread will call `poll` again, so from now on `register` fails instead of asking for events in vain.
    fn drop(&mut self) {
        // A `close_loop` in another thread that fails clears the flag again. The thread holds this lock until then, so
        // it cannot clear the flag after we have set it.
        let _outcome = self.registrator.closing.lock();
        self.registrator.closing.is_closed.store(true, SeqCst);
    }
}

/// Whether the loop is closed.
#[derive(Default)]
struct Closing {
    is_closed: AtomicBool,
    /// Locked while a thread closes the loop. That may fail, and then the loop is as open as before.
    undecided: Mutex<()>,
}

impl Closing {
    fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst) && self.stays_closed()
    }

    /// Returns whether the loop is closed. If another thread is closing it, first waits until that thread has succeeded
    /// or failed.
    #[cold]
    fn stays_closed(&self) -> bool {
        let _outcome = self.lock();
        self.is_closed.load(SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock protects no data that a panic could leave half changed.
        self.undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle with which any thread can register sources with a [`Poll`], or close it. (The name is the book's; mio calls
/// it `Registry`.)
#[derive(Clone)]
pub struct Registrator {
    selector: Arc<Selector>,
    closing: Arc<Closing>,
}

impl Registrator {
    /// Asks for *one* event with this `token` as soon as `source` is [readable](Interests::READABLE), or
    /// [writable](Interests::WRITABLE). If the source is ready already, the event comes at once.
    ///
    /// | source | `READABLE` | `WRITABLE` |
    /// | --- | --- | --- |
    /// | [`TcpStream`](crate::TcpStream) | a read will not block | a write will not block, or will fail at once |
    /// | [`TcpListener`](crate::TcpListener) | `accept` will not block | never: `register` returns `InvalidInput` |
    /// | [`Connecting`](crate::Connecting) | never: `register` returns `InvalidInput` | connecting has succeeded or failed |
    ///
    /// After the event there is no other in that direction until the source is registered again. Register when you want
    /// the next event, for example when a read, a write or an `accept` has returned
    /// [`WouldBlock`](ErrorKind::WouldBlock). Registering again before the event replaces the token; there is still
    /// only one event.
    ///
    /// The two directions are independent. A stream may be registered for both, with two tokens or with one, and each
    /// registration has its event; neither replaces, delays, silences or renews the other.
    ///
    /// Any number of threads may register while another one waits in [`Poll::poll`]. In the steady state, `register` is
    /// one system call and allocates nothing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Interrupted`]: the loop was [closed](Registrator::close_loop), or its `Poll` was dropped.
    /// - [`ErrorKind::InvalidInput`], for one of two reasons. The source was registered with another `Poll` before: it
    ///   belongs to that one permanently, because Win32 cannot detach a socket from its port. Or the source does not
    ///   have this direction: a listener is never writable, and a connection that is being made is never readable. Such
    ///   a call changes nothing.
    /// - Others come from the system: on Linux, [`ErrorKind::StorageFull`] says that this user watches more descriptors
    ///   than `/proc/sys/fs/epoll/max_user_watches` allows. Even after such an error the source may belong to this
    ///   `Poll`. On Windows, a socket of a layered service provider may be refused, except for reading a stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use minimio::{Events, Interests, Poll, TcpStream};
    /// use std::io::Write;
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let stream = TcpStream::connect(listener.local_addr()?)?;
    /// let (mut peer, _) = listener.accept()?;
    ///
    /// let mut poll = Poll::new()?;
    /// let registrator = poll.registrator();
    /// let mut events = Events::with_capacity(8);
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| registrator.register(&stream, 7, Interests::READABLE));
    ///     peer.write_all(b"now")?;
    ///     poll.poll(&mut events, None)
    /// })?;
    /// assert_eq!(events[0].id(), 7);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn register(
        &self,
        source: &impl Source,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        if self.closing.is_closed() {
            return Err(closed());
        }
        source.register(&self.selector, token, interests)
    }

    /// Closes the loop: a running `poll` returns at once, and from now on `poll`, `register` and `close_loop` return
    /// [`ErrorKind::Interrupted`], through this registrator and all its clones.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Interrupted`]: the loop is closed already, or its `Poll` was dropped.
    /// - Others come from the system. After such an error the loop is still open, and no event is lost.
    pub fn close_loop(&self) -> io::Result<()> {
        let Closing { is_closed, .. } = &*self.closing;
        let _outcome = self.closing.lock();
        // [flag] First the flag, then the wake-up, so that the thread that wakes up finds the flag set.
        if is_closed.swap(true, SeqCst) {
            return Err(closed());
        }
        let result = self.selector.wake();
        result.inspect_err(|_| is_closed.store(false, SeqCst))
    }
}

impl fmt::Debug for Registrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrator").finish_non_exhaustive()
    }
}

#[cold]
fn closed() -> io::Error {
    io::Error::new(ErrorKind::Interrupted, "the event loop is closed")
}
