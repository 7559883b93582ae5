//! The simplest cross-platform event loop that is correct: any thread registers sockets, and one thread sleeps until the
//! operating system says which of them can be read or written, have a client to accept, or have connected.
//!
//! It is written to be read beside the book "Epoll, Kqueue and IOCP Explained with Rust", and to be studied line by
//! line. For production there are [mio](https://docs.rs/mio) and [tokio](https://docs.rs/tokio).
//!
//! ```
//! use minimio::{Events, Interests, Poll, TcpStream};
//! use std::io::{Read, Write};
//! use std::net::TcpListener;
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let mut stream = TcpStream::connect(listener.local_addr()?)?;
//! let (mut peer, _) = listener.accept()?;
//!
//! let mut poll = Poll::new()?;
//! let registrator = poll.registrator(); // may move to another thread, and be cloned for more
//! registrator.register(&stream, 10, Interests::READABLE)?;
//! peer.write_all(b"hello")?;
//!
//! let mut events = Events::with_capacity(1024);
//! poll.poll(&mut events, None)?; // sleeps until there is an event
//! for event in &events {
//!     assert_eq!(event.id(), 10);
//!     let mut buffer = [0; 64];
//!     let n = stream.read(&mut buffer)?; // does not block: that is what the event says
//!     assert_eq!(&buffer[..n], b"hello");
//! }
//! # std::io::Result::Ok(())
//! ```
//!
//! # What it promises
//!
//! The same on every operating system, and [each sentence has a test](guide::promises). A *source* is what can be
//! [registered](Registrator::register): a [`TcpStream`], a [`TcpListener`], or a [`Connecting`] (a connection that is
//! being made).
//!
//! - One `register`, one event, in one direction: then silence in that direction until the next `register`. If the
//!   source is ready already, the event comes at once. Registering again before the event replaces the token.
//! - Reading and writing are independent: a stream may be registered for both, with two tokens or with one,
//!   and each registration has its event. The event says which of the two it answers.
//! - An event is a hint to try. [`READABLE`](Interests::READABLE) says that a read will not block now: there is data,
//!   or the end of the stream, or an error to collect. [`WRITABLE`](Interests::WRITABLE) says that a write of at least
//!   one byte will not block now, or that it will fail at once because the connection is broken. If another thread has
//!   read or written in the meantime, there may be nothing left, or no room.
//! - A listener is readable when [`accept`](TcpListener::accept) will not block now. It is never writable.
//! - [`start_connect`](TcpStream::start_connect) returns at once. The connection is writable when connecting has
//!   succeeded or failed, and [`finish`](Connecting::finish) then returns the stream, or the reason why there is none.
//!   Until `finish` it is never readable.
//! - [`poll`](Poll::poll) returns with events, or after the timeout and not a moment earlier. Signals do not end it.
//! - [`close_loop`](Registrator::close_loop) ends a running `poll` at once, from any thread. From then on `register`,
//!   `poll` and `close_loop` return [`Interrupted`](std::io::ErrorKind::Interrupted).
//! - Sources, registrators and the loop may be dropped in any order, and what `write` has accepted is not lost. No
//!   `poll` that begins after the drop of a source returns an event of that source. (A `poll` that runs during the drop
//!   may have taken the event before.)
//! - No token is reserved. The library does not panic, whatever a user or the system does, and leaks nothing. (One
//!   exception: memory that Windows does not give back within ten seconds after the loop was dropped stays allocated.)
//!
//! # How it works
//!
//! The [guide] explains how event loops work on all three kinds of systems, in thirteen chapters and a hundred minutes.
//! The guide also has [experiments](guide::experiments), [exercises](guide::exercises), and a list of [the book's
//! pages](guide::book) with what is different here.
//!
//! The feature `trace`, off by default, writes a line to standard error for each call to the system, in the system's own
//! words: when the call returned, in which thread, its arguments, its result, and how long it took. `cargo run --example
//! delayserver --features trace` writes these lines on Linux for the client's side of its shortest request (the dots
//! stand for the events of nine others):
//!
//! ```text
//!      5.393 ms  main         socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = fd 20  (0.002 ms)
//!      5.402 ms  main         connect(fd 20, 127.0.0.1:44203) = -1 EINPROGRESS  (0.007 ms)
//!      5.405 ms  main         epoll_ctl(fd 8, EPOLL_CTL_ADD, fd 20, EPOLLOUT|EPOLLONESHOT, token 9) = 0  (0.001 ms)
//!      5.483 ms  reactor      epoll_wait(fd 7, capacity 1024, timeout 200 ms) = 1: [EPOLLIN|EPOLLRDNORM writers]  (0.005 ms)
//!      5.494 ms  reactor      epoll_wait(fd 8, capacity 1024, timeout 0 ms) = 10: [..., EPOLLOUT token 9]  (0.002 ms)
//!      6.639 ms  main         send(fd 20, 57 bytes) = 57  (0.005 ms)
//!      6.643 ms  main         epoll_ctl(fd 7, EPOLL_CTL_ADD, fd 20, EPOLLIN|EPOLLONESHOT, token 9) = 0  (0.001 ms)
//!    109.375 ms  reactor      epoll_wait(fd 7, capacity 1024, timeout 200 ms) = 1: [EPOLLIN token 9]  (103.859 ms)
//!    109.529 ms  main         recv(fd 20, 32 bytes) = 32  (0.008 ms)
//!    109.540 ms  main         recv(fd 20, 32 bytes) = 32  (0.001 ms)
//!    109.544 ms  main         recv(fd 20, 64 bytes) = 47  (0.001 ms)
//!    109.549 ms  main         recv(fd 20, 17 bytes) = 0  (0.001 ms)
//!    109.602 ms  main         epoll_ctl(fd 7, EPOLL_CTL_DEL, fd 20) = 0  (0.008 ms)
//!    109.609 ms  main         epoll_ctl(fd 8, EPOLL_CTL_DEL, fd 20) = 0  (0.003 ms)
//!    109.613 ms  main         close(fd 20)
//! ```
//!
//! The lines are in the order of their times: each is written after its call has returned (before the call, if it is a
//! `close`). Three calls read the 111 bytes of the answer, because `read_to_end` reads as much as its vector has room
//! for: 32 bytes at first, and the vector doubles each time it is full. The fourth call returns 0, the end of the
//! stream.
//!
//! `examples/replay` turns these lines into a page on which you step through the run. After each call, the page shows the
//! content of the queue, what each thread does, and who owns which memory.
//!
//! On Windows the lines contain no tokens, because the system never gets the tokens. On every system, some calls that
//! `std` makes for us have no line, such as those of `TcpStream::connect`, `TcpListener::bind`, `finish`, `shutdown`
//! and `set_nonblocking`.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

#[macro_use]
mod sys;

mod event;
pub mod guide;
mod listener;
mod poll;
mod source;
mod stream;

pub use event::{Event, Events, Interests, Token};
pub use listener::TcpListener;
pub use poll::{Poll, Registrator};
pub use source::Source;
pub use stream::{Connecting, TcpStream};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
