//! How an operating system tells a thread that a socket can be read or written, has a client, or has connected: twelve
//! chapters, about an hour and a half, for a reader who knows `std`'s threads and sockets.
//!
//! | chapter | minutes | the question |
//! | --- | --- | --- |
//! | [1. What a blocked thread costs](ch1_blocked_thread) | 6 | Why not one thread for each connection? |
//! | [2. Readiness and completion](ch2_readiness_completion) | 5 | Who moves the bytes, and when? |
//! | [3. Level, edge and one-shot](ch3_level_edge_oneshot) | 6 | How often am I told? |
//! | [4. The life of a registration](ch4_life) | 11 | What is called, in which order, on each system? |
//! | [5. A closed descriptor](ch5_closed_descriptor) | 6 | What can a number do to me after `close`? |
//! | [6. Wake-ups and threads](ch6_wakeups_threads) | 7 | How does another thread reach the one that sleeps? |
//! | [7. Hints, timeouts and signals](ch7_hints_timeouts) | 6 | What may come too often, too late or never? |
//! | [8. Twelve confusions](ch8_confusions) | 10 | What did others stumble over? |
//! | [9. One question, four answers](ch9_four_answers) | 9 | How does Windows come to speak of readiness? |
//! | [10. When there is room](ch10_writing) | 9 | What does "writable" say, and what does it not say? |
//! | [11. A connection that is being made](ch11_connecting) | 9 | What happens between `connect` and its event? |
//! | [12. Clients in a queue](ch12_listeners) | 5 | What does a listener wait for? |
//!
//! And six that are for looking things up, and for doing:
//!
//! | page | what it has |
//! | --- | --- |
//! | [What is promised](promises) | each sentence, with its tests and its places in the sources |
//! | [Experiments](experiments) | lines to break, and what goes red then |
//! | [Exercises](exercises) | what to build next, from easy to hard, with the tests that say when it is done |
//! | [The book and this code](book) | each of the book's pages, where that is here, and what is different |
//! | [How we know](how_we_know) | where all this was run, what each check does, and what no check here can decide |
//! | [Errata](errata) | where a page of the book and the system disagree |
//!
//! Read the chapters in this order the first time. In a hurry, read 2, 3 and 4, with one backend of the sources beside
//! them: `src/sys/epoll/mod.rs` is the shortest. Then 10, without which that one has a queue too many; and 8, which
//! stands on its own.
//!
//! "The book" is *[Epoll, Kqueue and IOCP Explained with
//! Rust](https://cfsamsonbooks.gitbook.io/epoll-kqueue-iocp-explained/)* by Carl Fredrik Samson, beside which minimio
//! is to be read.
//!
//! # How to read it
//!
//! Places in the sources are cited by *marks*: `[arm]` stands in a comment where one event is asked for, once in each
//! backend (or once for all, in a file that they share). So `grep -rn '\[arm\]' src/sys src/poll.rs` shows the same
//! step on three systems. The marks are listed in [chapter 4](ch4_life#the-marks).
//!
//! Some words: a [`Poll`](crate::Poll) is the event *loop*. Each backend's `Selector` owns the system's *queue*: an
//! epoll (to be exact, two of them), a kqueue, or on Windows a completion *port*. A *source* is what can be registered:
//! a stream, a listener, or a connection that is being made. What is said of a stream below is true of every source,
//! where nothing else is said.
//!
//! Every snippet in Rust is a test that `cargo test` runs. Most of them begin with a connection to ourselves: one end
//! is a stream of minimio's, the other, the peer, one of `std`'s. The function that makes it is hidden there; it is
//! this one:
//!
//! ```
//! use std::{io, net};
//!
//! fn pair() -> io::Result<(minimio::TcpStream, net::TcpStream)> {
//!     let listener = net::TcpListener::bind("127.0.0.1:0")?;
//!     let stream = minimio::TcpStream::connect(listener.local_addr()?)?;
//!     let (peer, _) = listener.accept()?;
//!     Ok((stream, peer))
//! }
//! # pair()?;
//! # io::Result::Ok(())
//! ```
//!
//! What is said of a system was checked against its manual: `epoll(7)`, `epoll_ctl(2)`, `epoll_wait(2)`, `connect(2)`,
//! `accept(2)`, `listen(2)`, `socket(7)` and `tcp(7)` of Linux, `kqueue(2)` of FreeBSD, and Microsoft's pages for the
//! functions named. Where a sentence says "tried", a small program was run on Linux, or under Wine, which is not
//! Windows.
//!
//! # Twelve questions for the end
//!
//! If you can answer a question, you have understood the chapter of that number.
//!
//! 1. What does a thread cost that waits in `read`, if not time?
//! 2. Whose is the memory between the beginning of a read and its end: with readiness, and with completion?
//! 3. Five bytes have come, and two were read. What does the next wait say in each of the three modes?
//! 4. Why is the token in the epoll entry, in the kqueue event, but on Windows neither in the port nor with the socket?
//! 5. How can an event come for a descriptor that was closed, and why does `EPOLL_CTL_DEL` not help then?
//! 6. Why is the flag set before the sleeper is woken?
//! 7. Why is a wait that was interrupted not simply begun again with the same timeout?
//! 8. Which of the twelve would have happened to you?
//! 9. What have the answers for Windows in common, and why does minimio use two of them?
//! 10. Why does one wait first and then read, but write first and then wait?
//! 11. What would happen if `finish` could be called twice?
//! 12. Forty clients are connected, and the server has accepted ten. How can that be?

#[doc = include_str!("ch1_blocked_thread.md")]
pub mod ch1_blocked_thread {}

#[doc = include_str!("ch2_readiness_completion.md")]
pub mod ch2_readiness_completion {}

#[doc = include_str!("ch3_level_edge_oneshot.md")]
pub mod ch3_level_edge_oneshot {}

#[doc = include_str!("ch4_life.md")]
pub mod ch4_life {}

#[doc = include_str!("ch5_closed_descriptor.md")]
pub mod ch5_closed_descriptor {}

#[doc = include_str!("ch6_wakeups_threads.md")]
pub mod ch6_wakeups_threads {}

#[doc = include_str!("ch7_hints_timeouts.md")]
pub mod ch7_hints_timeouts {}

#[doc = include_str!("ch8_confusions.md")]
pub mod ch8_confusions {}

#[doc = include_str!("ch9_four_answers.md")]
pub mod ch9_four_answers {}

#[doc = include_str!("ch10_writing.md")]
pub mod ch10_writing {}

#[doc = include_str!("ch11_connecting.md")]
pub mod ch11_connecting {}

#[doc = include_str!("ch12_listeners.md")]
pub mod ch12_listeners {}

#[doc = include_str!("promises.md")]
pub mod promises {}

#[doc = include_str!("experiments.md")]
pub mod experiments {}

#[doc = include_str!("exercises.md")]
pub mod exercises {}

#[doc = include_str!("book.md")]
pub mod book {}

#[doc = include_str!("errata.md")]
pub mod errata {}

#[doc = include_str!("how_we_know.md")]
pub mod how_we_know {}
