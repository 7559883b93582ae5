//! One folder for each operating system's event queue, and the one place that chooses among them.
//!
//! A backend provides three types. `poll.rs`, `event.rs`, `source.rs`, `stream.rs` and `listener.rs` use these types,
//! so the compiler checks the signatures below. (On Unix, both backends share one `Source`, the one in `unix/mod.rs`.
//! There, a backend provides two other things instead: the type `Entries`, in which a source remembers its entries in
//! the queue, and the method `Selector::deregister`.)
//!
//! - [`RawEvent`]: an event: on Unix the record that the system writes, on Windows a struct of our own. `token(&self)
//!   -> Token`: the token that was passed to `register`; `is_writable(&self) -> bool`: whether `register` asked for
//!   `WRITABLE`.
//! - [`Source`]: one of `std`'s sockets, `inner`, that knows the selector it belongs to. `From` makes it. For a stream
//!   it has `read`, `read_vectored`, `shutdown` and `set_nonblocking`. Dropping it cancels its registrations. (The one
//!   in `unix/mod.rs` calls the selector's `deregister`.)
//! - [`Selector`]: the system's queue, closed when it is dropped. Threads share it.
//!   - `new() -> io::Result<Arc<Selector>>`: descriptors are not inherited by child programs.
//!   - `register(&self, &Source<_>, Token, Interests) -> io::Result<()>`: asks for one event in one direction, which
//!     comes at once if the source is ready already. Replaces a registration that still waits in that direction, and
//!     does not change a registration in the other direction. Called from any thread, also during `select`. A source
//!     of another selector is `InvalidInput`.
//!   - `select(&self, &mut Vec<Event>, timeout_ms: Option<i32>) -> io::Result<()>`: replaces the contents of the
//!     vector with new events, at most as many as its capacity; `InvalidInput` if that is 0. While there are none, it
//!     sleeps until `wake` is called or the timeout (never negative; `None`: no limit) expires. It may also return
//!     early without events: `poll.rs` then looks at the clock, and calls `select` again.
//!   - `wake(&self) -> io::Result<()>`: from then on, every `select` returns without sleeping, and the contents of the
//!     vector have no meaning.
//!
//! [`start_connect`] is shared by all backends, except for the two functions that it calls, `new_socket` and `connect`.
//! They are in `unix/socket.rs` and in `iocp/socket.rs`.
//!
//! With the feature `trace`, a backend's module `ffi` is its `traced.rs`: the same functions, each of which also writes
//! a line with its arguments and its result.

#[cfg(feature = "trace")]
#[macro_use]
pub mod trace;

/// Without the feature `trace`, only the call. (`now:` marks a call that does not sleep. Only `trace.rs` needs to know
/// it.)
#[cfg(not(feature = "trace"))]
macro_rules! traced {
    (now: $call:expr, $($words:tt)*) => {
        $call
    };
    ($call:expr, $($words:tt)*) => {
        $call
    };
}

#[cfg(not(feature = "trace"))]
macro_rules! traced_close {
    ($($what:expr),*) => {};
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(minimio_kqueue)))]
mod epoll;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(minimio_kqueue)))]
use epoll as backend;

#[cfg(all(
    unix,
    any(not(any(target_os = "linux", target_os = "android")), minimio_kqueue)
))]
mod kqueue;
#[cfg(all(
    unix,
    any(not(any(target_os = "linux", target_os = "android")), minimio_kqueue)
))]
use kqueue as backend;

#[cfg(windows)]
mod iocp;
#[cfg(windows)]
use iocp as backend;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    windows
)))]
compile_error!(
    "minimio has no backend for this target: it knows epoll (Linux, Android), kqueue (macOS, iOS, the BSDs) and IOCP (Windows)"
);

mod connect;
mod error;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
use backend::Entries;
#[cfg(windows)]
pub use backend::Source;
pub use backend::{RawEvent, Selector};
pub use connect::start_connect;
#[cfg(unix)]
pub use unix::Source;

use std::io::{self, IoSliceMut, Read};
use std::net;

/// `std` reads a stream into several buffers with `readv`, and on Windows with a `WSARecv` without an `OVERLAPPED`,
/// which lends nothing and blocks if the socket does.
fn recv_vectored(mut stream: &net::TcpStream, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    traced!(
        stream.read_vectored(bufs),
        "{}({}, {} bytes)",
        if cfg!(windows) { "WSARecv" } else { "readv" },
        trace::name_of(stream),
        bufs.iter().map(|buf| buf.len()).sum::<usize>()
    )
}
