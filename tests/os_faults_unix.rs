//! Any call to the system may fail. The failure comes out as an error that names the call; nothing leaks, nothing panics,
//! and the loop goes on.
//!
//! The functions with which the library calls the system are answered here: a linker takes the program's own before those
//! of a shared library. They pass the call on, unless it is its turn to fail.
#![cfg(unix)]

mod common;

use common::os::{count_open_handles, duplicate};
use common::{DIRECTIONS, Loop, PATIENCE, alone, listener, pair, readable_pair, reset};
use minimio::{Events, Interests, Poll, TcpStream};
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io::{self, ErrorKind, Read, Write};
use std::net;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::{mem, thread};

/// What this backend calls, when it does what.
struct Calls {
    /// Which call, and for the how manieth time.
    new: &'static [(&'static str, usize)],
    register: &'static str,
    poll: &'static str,
    /// How often a `poll` does that, when a stream waits to write.
    waits: usize,
    wake: &'static str,
}

const HAS_EPOLL: bool =
    cfg!(any(target_os = "linux", target_os = "android")) && cfg!(not(minimio_kqueue));

const KEVENT: &str = if cfg!(target_os = "netbsd") {
    "__kevent50"
} else {
    "kevent"
};

const SOCKET: &str = if cfg!(target_os = "netbsd") {
    "__socket30"
} else {
    "socket"
};

const ACCEPT: &str = if cfg!(target_vendor = "apple") {
    "accept"
} else {
    "accept4"
};

const CALLS: Calls = if HAS_EPOLL {
    Calls {
        new: &[
            ("epoll_create1", 1),
            ("epoll_create1", 2),
            ("eventfd", 1),
            ("epoll_ctl", 1),
            ("epoll_ctl", 2),
        ],
        register: "epoll_ctl",
        poll: "epoll_wait",
        waits: 2,
        wake: "write",
    }
} else {
    Calls {
        new: if cfg!(target_vendor = "apple") {
            &[("kqueue", 1), (KEVENT, 1)]
        } else {
            &[("kqueue", 1), ("fcntl", 1), (KEVENT, 1)]
        },
        register: KEVENT,
        poll: KEVENT,
        waits: 1,
        wake: if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
            "write"
        } else {
            KEVENT
        },
    }
};

const EINTR: c_int = 4;
const EBADF: c_int = 9;
const EAGAIN: c_int = if cfg!(any(target_os = "linux", target_os = "android")) {
    11
} else {
    35
};
const ENOMEM: c_int = 12;
const EINVAL: c_int = 22;
const ENFILE: c_int = 23;
const EMFILE: c_int = 24;
const ENOSPC: c_int = 28;

const EPIPE: c_int = 32;
const IS_LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
const ENETUNREACH: c_int = if IS_LINUX { 101 } else { 51 };
const ECONNABORTED: c_int = if IS_LINUX { 103 } else { 53 };
const ECONNRESET: c_int = if IS_LINUX { 104 } else { 54 };

/// When this thread calls that function for the `nth` time, it fails with that `errno`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fault {
    call: &'static str,
    nth: usize,
    errno: c_int,
}

#[allow(clippy::missing_const_for_thread_local)] // it is const; on one target, clippy does not see that
mod of_this_thread {
    use super::{Cell, Fault};
    thread_local! {
        pub static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
        /// What happens in other threads before that call returns.
        pub static MEANWHILE: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    }
}
use of_this_thread::{FAULT, MEANWHILE};

fn due(call: &str) -> Option<c_int> {
    let mut fault = FAULT.get().filter(|fault| fault.call == call)?;
    fault.nth -= 1;
    let is_due = fault.nth == 0;
    FAULT.set((!is_due).then_some(fault));
    is_due.then_some(fault.errno)
}

macro_rules! may_fail {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> $result {
            if let Some(errno) = due(stringify!($name)) {
                if let Some(meanwhile) = MEANWHILE.take() {
                    meanwhile();
                }
                // SAFETY: it is this thread's `errno`.
                unsafe { *errno_location() = errno };
                return if errno == 0 { 0 } else { -1 };
            }
            let function = next(stringify!($name));
            // SAFETY: libc's function of that name has that signature.
            let function: extern "C" fn($($type),*) -> $result = unsafe { mem::transmute(function) };
            function($($arg),*)
        }
    )*};
}

#[cfg(any(target_os = "linux", target_os = "android"))]
may_fail! {
    epoll_create1(flags: c_int) -> c_int;
    eventfd(initval: c_uint, flags: c_int) -> c_int;
    epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut c_void) -> c_int;
    epoll_wait(epfd: c_int, events: *mut c_void, maxevents: c_int, timeout: c_int) -> c_int;
}

// It takes any number of arguments, which Apple's ABI passes in another way than three; and three are enough.
#[cfg(not(target_vendor = "apple"))]
may_fail! {
    fcntl(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int;
}

#[cfg(not(target_os = "netbsd"))]
may_fail! {
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
}

#[cfg(target_os = "netbsd")]
may_fail! {
    __socket30(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
}

#[cfg(not(target_vendor = "apple"))]
may_fail! {
    accept4(fd: c_int, addr: *mut c_void, len: *mut c_void, flags: c_int) -> c_int;
}

#[cfg(target_vendor = "apple")]
may_fail! {
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: c_uint) -> c_int;
    accept(fd: c_int, addr: *mut c_void, len: *mut c_void) -> c_int;
}

may_fail! {
    connect(fd: c_int, addr: *const c_void, len: c_uint) -> c_int;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut c_void) -> c_int;
    getpeername(fd: c_int, addr: *mut c_void, len: *mut c_void) -> c_int;
    kqueue() -> c_int;
    recv(fd: c_int, buf: *mut c_void, count: usize, flags: c_int) -> isize;
    send(fd: c_int, buf: *const c_void, count: usize, flags: c_int) -> isize;
    write(fd: c_int, buf: *const c_void, count: usize) -> isize;
}

#[cfg(not(target_os = "netbsd"))]
may_fail! {
    kevent(
        kq: c_int, changelist: *const c_void, nchanges: c_int, eventlist: *mut c_void, nevents: c_int,
        timeout: *const c_void
    ) -> c_int;
}

#[cfg(target_os = "netbsd")]
may_fail! {
    __kevent50(
        kq: c_int, changelist: *const c_void, nchanges: usize, eventlist: *mut c_void, nevents: usize,
        timeout: *const c_void
    ) -> c_int;
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;

    #[cfg_attr(
        any(target_os = "macos", target_os = "ios", target_os = "freebsd"),
        link_name = "__error"
    )]
    #[cfg_attr(
        any(target_os = "android", target_os = "netbsd", target_os = "openbsd"),
        link_name = "__errno"
    )]
    #[cfg_attr(
        any(target_os = "linux", target_os = "dragonfly"),
        link_name = "__errno_location"
    )]
    fn errno_location() -> *mut c_int;

    fn close(fd: c_int) -> c_int;
    fn dup2(oldfd: c_int, newfd: c_int) -> c_int;
}

/// The function that would have been called, had we none of that name.
fn next(name: &str) -> *mut c_void {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    let name = CString::new(name).unwrap();
    // SAFETY: the name ends with a zero.
    let function = unsafe { dlsym(RTLD_NEXT, name.as_ptr()) };
    assert!(!function.is_null(), "{name:?}");
    function
}

/// What the library makes of it when this call fails with that `errno`, at once. (With 0 the call does nothing, and says
/// that all is well.)
#[track_caller]
fn with_fault<T>(call: &'static str, errno: c_int, action: impl FnOnce() -> T) -> T {
    with_nth_fault(call, 1, errno, action)
}

/// The same when it is called for the `nth` time.
#[track_caller]
fn with_nth_fault<T>(
    call: &'static str,
    nth: usize,
    errno: c_int,
    action: impl FnOnce() -> T,
) -> T {
    FAULT.set(Some(Fault { call, nth, errno }));
    let result = action();
    assert_eq!(FAULT.replace(None), None, "this did not happen");
    result
}

#[track_caller]
fn assert_tells(error: &io::Error, call: &str, errno: c_int) {
    let cause = io::Error::from_raw_os_error(errno);
    assert_eq!(error.kind(), cause.kind());
    let name = match call {
        KEVENT => "kevent",
        SOCKET => "socket",
        _ => call,
    };
    assert!(error.to_string().starts_with(name), "{error}");
    assert!(error.to_string().ends_with(&cause.to_string()), "{error}");
}

#[test]
fn a_loop_that_cannot_be_made_leaves_nothing_behind() {
    let _alone = alone();
    let before = count_open_handles();
    for (call, nth) in CALLS.new {
        for errno in [EMFILE, ENFILE, ENOMEM, ENOSPC] {
            let error = with_nth_fault(call, *nth, errno, Poll::new).unwrap_err();
            assert_tells(&error, call, errno);
            assert_eq!(count_open_handles(), before, "{error}");
        }
    }
    Loop::new().expect_none();
}

#[test]
fn a_stream_that_could_not_be_registered_may_be_registered_later() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    for errno in [ENOMEM, ENOSPC, EINVAL] {
        let (stream, _peer) = readable_pair();
        // Each for the first time, and once more.
        for direction in DIRECTIONS.repeat(2) {
            let registrator = event_loop.registrator.clone();
            let register = |token| registrator.register(&stream, token, direction);
            let error = with_fault(CALLS.register, errno, || register(1)).unwrap_err();
            assert_tells(&error, CALLS.register, errno);
            event_loop.expect_none();
            register(2).unwrap();
            event_loop.expect(&[2]);
        }
    }
}

/// What the system thinks of a descriptor that is none.
#[test]
fn a_stream_whose_descriptor_was_closed_is_an_error() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let directions = DIRECTIONS.repeat(2);
    for (was_registered, direction) in [false, false, true, true].into_iter().zip(directions) {
        let (stream, peer) = pair();
        let registrator = &event_loop.registrator;
        if was_registered {
            registrator.register(&stream, 1, direction).unwrap();
        }
        // SAFETY: no other thread opens anything, so the number is not in use afterwards.
        unsafe { close(stream.as_raw_fd()) };
        let error = registrator.register(&stream, 2, direction).unwrap_err();
        // Gives `stream` a descriptor to close.
        // SAFETY: the number is not in use.
        unsafe { dup2(peer.as_raw_fd(), stream.as_raw_fd()) };
        assert_tells(&error, CALLS.register, EBADF);
        event_loop.expect_none();
    }
}

#[test]
fn a_wait_that_fails_loses_no_event() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    let mut events = Events::with_capacity(8);
    for errno in [EBADF, EINVAL, ENOMEM] {
        event_loop.register(&stream, 1);
        assert_eq!(event_loop.poll.poll(&mut events, None).unwrap(), 1);
        event_loop.register(&stream, 2);
        let result = with_fault(CALLS.poll, errno, || {
            event_loop.poll.poll(&mut events, None)
        });
        assert_tells(&result.unwrap_err(), CALLS.poll, errno);
        assert!(events.is_empty(), "these were brought before");
        event_loop.expect(&[2]);
    }
}

/// On Linux it is the second of two waits.
#[test]
fn a_wait_for_writers_that_fails_loses_no_event() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    let mut events = Events::with_capacity(8);
    for errno in [EBADF, EINVAL, ENOMEM] {
        event_loop.register_to_write(&stream, 1);
        let result = with_nth_fault(CALLS.poll, CALLS.waits, errno, || {
            event_loop.poll.poll(&mut events, None)
        });
        assert_tells(&result.unwrap_err(), CALLS.poll, errno);
        assert!(events.is_empty());
        event_loop.expect(&[1]);
    }
}

/// Those for reading are in hand by then: they will not be reported again.
#[test]
fn a_wait_for_writers_that_fails_loses_no_event_of_readers() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.register_to_write(&stream, 2);
    let result = with_nth_fault(CALLS.poll, CALLS.waits, ENOMEM, || {
        event_loop.poll.poll(&mut event_loop.events, None)
    });
    match HAS_EPOLL {
        true => {
            assert_eq!(result.unwrap(), 1);
            assert_eq!(event_loop.events[0].id(), 1);
            event_loop.expect(&[2]);
        }
        false => {
            assert_tells(&result.unwrap_err(), CALLS.poll, ENOMEM);
            event_loop.expect(&[1, 2]);
        }
    }
}

#[test]
fn a_signal_is_no_failure() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    let mut events = Events::with_capacity(8);
    for timeout in [None, Some(60_000)] {
        for (direction, nth) in DIRECTIONS.into_iter().zip([1, CALLS.waits]) {
            let registrator = &event_loop.registrator;
            registrator.register(&stream, 1, direction).unwrap();
            let n = with_nth_fault(CALLS.poll, nth, EINTR, || {
                event_loop.poll.poll(&mut events, timeout)
            });
            assert_eq!(n.unwrap(), 1);
        }
    }
    for timeout in [0, 20] {
        let n = with_fault(CALLS.poll, EINTR, || {
            event_loop.poll.poll(&mut events, Some(timeout))
        });
        assert_eq!(n.unwrap(), 0);
    }
}

#[test]
fn a_loop_that_could_not_be_closed_is_open() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    for errno in [EBADF, ENOMEM, ENOSPC] {
        let registrator = event_loop.registrator.clone();
        let error = with_fault(CALLS.wake, errno, || registrator.close_loop()).unwrap_err();
        assert_tells(&error, CALLS.wake, errno);
        event_loop.expect_none();
    }
    event_loop.registrator.close_loop().unwrap();
    let closed = event_loop.poll.poll(&mut event_loop.events, None);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Interrupted);
}

/// Long enough for another thread to do something, if nothing keeps it from doing so.
fn give_others_time() {
    let mut events = Events::with_capacity(1);
    Poll::new().unwrap().poll(&mut events, Some(100)).unwrap();
}

/// A `poll` that has an event already, while `close_loop` does not know yet that it cannot wake it.
#[test]
fn a_loop_that_could_not_be_closed_has_lost_no_event() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    let poller = thread::spawn(move || {
        event_loop
            .poll
            .poll(&mut event_loop.events, Some(PATIENCE.as_millis() as i32))
    });
    MEANWHILE.set(Some(Box::new(move || {
        peer.write_all(b"!").unwrap();
        give_others_time();
    })));
    with_fault(CALLS.wake, ENOMEM, || registrator.close_loop()).unwrap_err();
    assert_eq!(poller.join().unwrap().unwrap(), 1);
}

#[test]
fn a_loop_that_could_not_be_closed_is_closed_by_dropping_it() {
    let _alone = alone();
    let Loop {
        poll, registrator, ..
    } = Loop::new();
    let (sender, dropper) = mpsc::channel();
    MEANWHILE.set(Some(Box::new(move || {
        sender.send(thread::spawn(|| drop(poll))).unwrap();
        give_others_time();
    })));
    with_fault(CALLS.wake, ENOMEM, || registrator.close_loop()).unwrap_err();
    dropper.recv().unwrap().join().unwrap();
    let (stream, _peer) = pair();
    let closed = registrator.register(&stream, 1, Interests::READABLE);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Interrupted);
}

/// An old kqueue returns no receipt. (Of epoll no receipt is asked.)
#[test]
fn a_system_without_receipts_is_not_supported() {
    let _alone = alone();
    let before = count_open_handles();
    let (call, nth) = CALLS.new.last().unwrap();
    let result = with_nth_fault(call, *nth, 0, Poll::new);
    let result = result.map(drop).map_err(|error| error.kind());
    let expected = if HAS_EPOLL {
        Ok(())
    } else {
        Err(ErrorKind::Unsupported)
    };
    assert_eq!(result, expected);
    assert_eq!(count_open_handles(), before);
}

/// What the system says of a read is what the reader is told, and the next one finds everything.
#[test]
fn a_read_that_fails_loses_no_byte() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (mut stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    assert_eq!(event_loop.wait(), [1]);
    for errno in [EINTR, EAGAIN, ENOMEM] {
        let error = with_fault("recv", errno, || stream.read(&mut [0; 8])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno));
    }
    event_loop.register(&stream, 2);
    assert_eq!(event_loop.wait(), [2]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// After a reset, `send` fails with `EPIPE` on a BSD, and the reason is in `SO_ERROR`.
#[test]
fn a_write_tells_the_reason() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    event_loop.register(&stream, 1);
    reset(peer);
    assert_eq!(event_loop.wait(), [1]);
    for expected in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe] {
        let error = with_fault("send", EPIPE, || stream.write(b"!")).unwrap_err();
        assert_eq!(error.kind(), expected);
    }
}

#[test]
fn a_connection_that_cannot_be_started_leaves_nothing_behind() {
    let _alone = alone();
    let (_listener, addr) = listener();
    let before = count_open_handles();
    for (call, errno) in [
        (SOCKET, EMFILE),
        #[cfg(target_vendor = "apple")]
        ("setsockopt", EINVAL),
        ("connect", ENETUNREACH),
        ("connect", ENOMEM),
    ] {
        let error = with_fault(call, errno, || TcpStream::start_connect(addr)).unwrap_err();
        assert_tells(&error, call, errno);
        assert_eq!(count_open_handles(), before);
    }
}

/// The kernel goes on connecting, so to call `connect` once more would be wrong.
#[test]
fn a_signal_does_not_stop_a_connection() {
    let _alone = alone();
    let (_listener, addr) = listener();
    let connecting = with_fault("connect", EINTR, || TcpStream::start_connect(addr)).unwrap();
    // Here only the signal has happened, and no attempt.
    let nothing = connecting.finish().unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_connection_that_cannot_be_finished_leaves_nothing_behind() {
    let _alone = alone();
    let (_listener, addr) = listener();
    let before = count_open_handles();
    for call in ["getsockopt", "getpeername"] {
        let connecting = TcpStream::start_connect(addr).unwrap();
        let error = with_fault(call, ENOMEM, || connecting.finish()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ENOMEM), "{call}");
        assert_eq!(count_open_handles(), before);
    }
}

/// Some kernels report a client that has left as an error of `accept`.
#[test]
fn a_client_that_has_left_is_passed_over() {
    let _alone = alone();
    let (listener, addr) = listener();
    for errno in [ECONNABORTED, ECONNRESET] {
        let client = net::TcpStream::connect(addr).unwrap();
        let (_stream, peer) = with_fault(ACCEPT, errno, || listener.accept()).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}

#[test]
fn a_client_that_cannot_be_accepted_stays_in_the_queue() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    let client = net::TcpStream::connect(addr).unwrap();
    let before = count_open_handles();
    for errno in [EMFILE, ENFILE, ENOMEM] {
        let error = with_fault(ACCEPT, errno, || listener.accept()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno));
        assert_eq!(count_open_handles(), before);
        event_loop.register_listener(&listener, 1);
        assert_eq!(event_loop.wait(), [1]);
    }
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

/// A stream that is dropped cannot tell anybody; what matters is that it is gone.
#[test]
fn a_stream_is_dropped_whatever_the_system_says() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let before = count_open_handles();
    for nth in [1, 2] {
        let (stream, peer) = readable_pair();
        event_loop.register(&stream, 1);
        event_loop.register_to_write(&stream, 2);
        drop_with_nth_fault(stream, nth);
        drop(peer);
        event_loop.expect_none();
    }
    assert_eq!(count_open_handles(), before);
}

/// Closing the descriptor would take both registrations back, if it had no duplicate.
#[test]
fn a_direction_that_cannot_be_taken_back_does_not_keep_the_other() {
    let _alone = alone();
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop.register(&stream, 1);
    event_loop.register_to_write(&stream, 2);
    let _heir = duplicate(&stream);
    drop_with_nth_fault(stream, 1);
    event_loop.expect_none();
}

#[track_caller]
fn drop_with_nth_fault(stream: TcpStream, nth: usize) {
    let (call, errno) = (CALLS.register, ENOMEM);
    FAULT.set(Some(Fault { call, nth, errno }));
    drop(stream);
    // kqueue has nothing to do here.
    assert_eq!(FAULT.take().is_none(), HAS_EPOLL);
}
