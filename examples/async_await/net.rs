//! The futures that wait: for sockets, and for time.
//!
//! A future that must wait stores its waker in the [`Reactor`] under a token, and registers its socket with that token. The
//! event contains the token, the reactor finds the waker under the token, and the waker gives the task its next turn.

use crate::executor::{Executor, current};
use minimio::{Events, Interests, Registrator, Token};
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{HashMap, binary_heap};
use std::future;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

pub struct Reactor {
    event_loop: RefCell<(minimio::Poll, Events)>,
    registrator: Registrator,
    /// The key is a token and a direction: `false` to read or to sleep, `true` to write.
    wakers: RefCell<HashMap<(Token, bool), Waker>>,
    /// The deadlines of tasks that sleep, the earliest first.
    deadlines: RefCell<binary_heap::BinaryHeap<Reverse<(Instant, Token)>>>,
    next_token: Cell<Token>,
    bell: minimio::TcpStream,
}

const BELL: Token = 0;

impl Reactor {
    /// Also returns the stream that rings the bell. The two streams are a connection to ourselves: only an event wakes the
    /// loop without closing it.
    pub fn new() -> io::Result<(Reactor, minimio::TcpStream)> {
        let listener = minimio::TcpListener::bind("127.0.0.1:0")?;
        let far = minimio::TcpStream::connect(listener.local_addr()?)?;
        let (mut bell, mut peer) = listener.accept()?;
        while peer != far.local_addr()? {
            (bell, peer) = listener.accept()?; // the one before was another program's
        }
        bell.set_nonblocking(true)?;
        let event_loop = minimio::Poll::new()?;
        let registrator = event_loop.registrator();
        registrator.register(&bell, BELL, Interests::READABLE)?;
        let reactor = Reactor {
            event_loop: RefCell::new((event_loop, Events::with_capacity(1024))),
            registrator,
            wakers: RefCell::default(),
            deadlines: RefCell::default(),
            next_token: Cell::new(BELL + 1),
            bell,
        };
        Ok((reactor, far))
    }

    /// Calls the wakers whose events have occurred or whose deadlines have passed. If `may_sleep`, first sleeps until
    /// there is one.
    pub fn wait(&self, may_sleep: bool) -> io::Result<()> {
        let left = self.deadlines.borrow().peek().map(|first| {
            let left = first.0.0.saturating_duration_since(Instant::now());
            left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
        });
        let timeout_ms = if may_sleep { left } else { Some(0) };
        let (event_loop, events) = &mut *self.event_loop.borrow_mut();
        event_loop.poll(events, timeout_ms)?;
        for event in &*events {
            match event.id() {
                BELL => {
                    let _ = (&self.bell).read(&mut [0; 64]); // bytes that are left give another event
                    self.registrator
                        .register(&self.bell, BELL, Interests::READABLE)?;
                }
                token => self.wake(token, event.is_writable()),
            }
        }
        let mut deadlines = self.deadlines.borrow_mut();
        let is_passed =
            |first: &binary_heap::PeekMut<Reverse<(Instant, Token)>>| first.0.0 <= Instant::now();
        while let Some(first) = deadlines.peek_mut().filter(is_passed) {
            self.wake(binary_heap::PeekMut::pop(first).0.1, false);
        }
        Ok(())
    }

    /// If there is no waker, the future that waited was dropped.
    fn wake(&self, token: Token, is_writable: bool) {
        let waker = self.wakers.borrow_mut().remove(&(token, is_writable));
        waker.into_iter().for_each(Waker::wake);
    }

    /// Returns no token twice, so a late event wakes no other task.
    pub fn new_token(&self) -> Token {
        self.next_token.replace(self.next_token.get() + 1)
    }
}

/// A token of a socket or a `sleep`. Dropping the place removes the wakers under the token.
struct Place {
    token: Token,
    executor: Rc<Executor>,
}

impl Place {
    fn new() -> Place {
        let executor = current();
        let token = executor.reactor.new_token();
        Place { token, executor }
    }

    /// Calls `start`, and waits for the event. The event has come when the waker is no longer in the map, because the
    /// reactor removes a waker before it calls it.
    async fn event(&self, is_writable: bool, start: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut start = Some(start);
        future::poll_fn(|context| {
            let (key, wakers) = ((self.token, is_writable), &self.executor.reactor.wakers);
            if start.is_none() && !wakers.borrow().contains_key(&key) {
                return Poll::Ready(Ok(()));
            }
            // At each poll, because the future may have moved to another task. And before `start`: if another thread
            // handles events, the event may come before `start` returns.
            wakers.borrow_mut().insert(key, context.waker().clone());
            start.take().map_or(Ok(()), |start| start())?;
            Poll::Pending
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let wakers = &self.executor.reactor.wakers;
        wakers.borrow_mut().remove(&(self.token, false));
        wakers.borrow_mut().remove(&(self.token, true));
    }
}

/// The deadline of a `sleep` that was dropped stays in the heap until it has passed, and then wakes no task.
pub async fn sleep(time: Duration) {
    let (place, deadline) = (Place::new(), Instant::now() + time);
    let deadlines = &place.executor.reactor.deadlines;
    let first = Reverse((deadline, place.token));
    deadlines.borrow_mut().push(first);
    let _ = place.event(false, || Ok(())).await; // `start` cannot fail
}

struct Socket<S> {
    inner: S, // dropped first, which cancels its registrations
    place: Place,
}

impl<S: minimio::Source> Socket<S> {
    fn new(inner: S) -> Socket<S> {
        let place = Place::new();
        Socket { inner, place }
    }

    async fn event(&self, interests: Interests) -> io::Result<()> {
        let Place { token, executor } = &self.place;
        let registrator = &executor.reactor.registrator;
        let register = || registrator.register(&self.inner, *token, interests);
        self.place.event(interests.is_writable(), register).await
    }

    /// Tries first, and waits when there is nothing to read, no room to write, or no client to accept.
    async fn retry<T, F>(&self, interests: Interests, mut attempt: F) -> io::Result<T>
    where
        F: FnMut(&S) -> io::Result<T>,
    {
        loop {
            match attempt(&self.inner) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                result => return result,
            }
            self.event(interests).await?;
        }
    }
}

/// One task may read while another one writes. But two must not read, or write, at the same time: each direction has one
/// waker.
pub struct TcpStream(Socket<minimio::TcpStream>);

impl TcpStream {
    pub async fn connect(addr: std::net::SocketAddr) -> io::Result<TcpStream> {
        let connecting = Socket::new(minimio::TcpStream::start_connect(addr)?);
        connecting.event(Interests::WRITABLE).await?;
        let Socket { inner, place } = connecting;
        let inner = inner.finish()?;
        Ok(TcpStream(Socket { inner, place }))
    }

    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let read = |mut stream: &minimio::TcpStream| stream.read(buf);
        self.0.retry(Interests::READABLE, read).await
    }

    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let write = |mut stream: &minimio::TcpStream| stream.write(buf);
            buf = &buf[self.0.retry(Interests::WRITABLE, write).await?..];
        }
        Ok(())
    }
}

pub struct TcpListener(Socket<minimio::TcpListener>);

impl TcpListener {
    pub fn new(listener: minimio::TcpListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        Ok(TcpListener(Socket::new(listener)))
    }

    pub async fn accept(&self) -> io::Result<TcpStream> {
        let accept = |listener: &minimio::TcpListener| listener.accept();
        let (stream, _) = self.0.retry(Interests::READABLE, accept).await?;
        stream.set_nonblocking(true)?;
        Ok(TcpStream(Socket::new(stream)))
    }
}
