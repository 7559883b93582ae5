//! The simplest cross-platform event loop that is correct: any thread registers streams, and one sleeps until the
//! operating system says which of them can be read.
//!
//! It is written to be read beside the book "Epoll, Kqueue and IOCP Explained with Rust", and to be picked apart. For
//! production there are [mio](https://docs.rs/mio) and [tokio](https://docs.rs/tokio).
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
//! The same on every operating system, and [each sentence has a test](guide::promises):
//!
//! - One [`register`](Registrator::register), one event: then silence until the next `register`. Data that is already
//!   there counts. Registering again before the event replaces the token.
//! - An event is a hint to try. It says that a read will not block now: there is data, or the end of the stream, or an
//!   error to collect. If somebody has read since the `register`, there may be nothing any more.
//! - [`poll`](Poll::poll) returns with events, or after the timeout and not a moment earlier. Signals do not end it.
//! - [`close_loop`](Registrator::close_loop) ends a running `poll` at once, from any thread. From then on all three
//!   calls return [`Interrupted`](std::io::ErrorKind::Interrupted).
//! - Streams, registrators and the loop may be dropped in any order. No event comes for a stream that is gone: no
//!   `poll` that begins after the drop brings one. (One that runs meanwhile may have taken it before.)
//! - No token is reserved, nothing panics on what a user or the system does, and nothing leaks.
//!
//! # How it works
//!
//! The [guide] explains it, in nine chapters and an hour, on all three kinds of systems. Beside them it has
//! [experiments](guide::experiments), [exercises](guide::exercises), and [the book's pages](guide::book) with what is
//! different here.
//!
//! And the feature `trace`, off by default, writes a line to standard error for each call to the system, in the
//! system's own words: when it began, in which thread, what was passed, and what came of it; and for a call that may
//! sleep, how long it took. `cargo run --example delayserver --features trace` says on Linux, of its shortest request:
//!
//! ```text
//!      0.621 ms  main         epoll_ctl(fd 7, EPOLL_CTL_ADD, fd 19, EPOLLIN|EPOLLONESHOT, token 9) = 0
//!      0.670 ms  reactor      epoll_wait(fd 7, capacity 1024, timeout 200 ms) = 1: [EPOLLIN token 9]  (100.570 ms)
//!    101.329 ms  main         recv(fd 19, 32 bytes) = 32  (0.003 ms)
//! ```
//!
//! On Windows the token is not among the words, because the system never gets it. On no system is there a line for what
//! `std` does for us besides reading: connecting, writing, `set_nonblocking`, and closing a stream or the queue.
#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod event;
pub mod guide;
mod listener;
mod poll;
mod source;
mod stream;
mod sys;

pub use event::{Event, Events, Interests, Token};
pub use listener::TcpListener;
pub use poll::{Poll, Registrator};
pub use source::Source;
pub use stream::{Connecting, TcpStream};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
