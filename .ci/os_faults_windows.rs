//! As `tests/os_faults_unix.rs`: the calls to the system fail, one by one. The failure comes out as an error that names the
//! call; nothing leaks, nothing panics, and the loop goes on. For this, `late.rs` is in the place of `ffi.rs`. These tests
//! run one after the other (`--test-threads=1`), because they count handles, and on Windows a thread has one.
#![cfg(windows)]

mod common;

use common::counting::{Counting, live_bytes_of_all_threads};
use common::os::{count_open_handles, processor_time};
use common::{
    DIRECTIONS, Loop, full_pair, listener, make_room, pair, read_pattern, readable_pair,
    waiting_connection, within_patience,
};
use minimio::{Connecting, Interests, Poll, TcpListener, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::{env, process::Command};

#[global_allocator]
static GLOBAL: Counting = Counting;

unsafe extern "Rust" {
    safe fn set_fault(fault: Option<(&'static str, i32)>) -> Option<(&'static str, i32)>;
    safe fn operations_in_flight() -> usize;
    safe fn give_up_operations();
}

const ERROR_NOT_ENOUGH_MEMORY: i32 = 8;
const ERROR_NO_SYSTEM_RESOURCES: i32 = 1450;
const WSAEWOULDBLOCK: i32 = 10035;
const WSAEMFILE: i32 = 10024;
const WSAENETUNREACH: i32 = 10051;
const WSAENOBUFS: i32 = 10055;
const WSASYSNOTREADY: i32 = 10091;

const STATUS_SUCCESS: i32 = 0;
const STATUS_PENDING: i32 = 0x103;
/// In Win32's words, `ERROR_NOT_ENOUGH_MEMORY`.
const STATUS_NO_MEMORY: i32 = 0xC000_0017_u32 as i32;
/// In Win32's words, `ERROR_NO_SYSTEM_RESOURCES`.
const STATUS_INSUFFICIENT_RESOURCES: i32 = 0xC000_009A_u32 as i32;

/// What becomes of the action when that happens in it.
#[track_caller]
fn with_fault<T>(call: &'static str, code: i32, action: impl FnOnce() -> T) -> T {
    set_fault(Some((call, code)));
    let result = action();
    assert_eq!(set_fault(None), None, "this did not happen");
    result
}

/// The error that the library makes of it when this call fails with that error, at once.
#[track_caller]
fn error_of<T>(call: &'static str, code: i32, action: impl FnOnce() -> io::Result<T>) -> io::Error {
    error_by(call, code, code, action)
}

/// The same for a call that fails with an `NTSTATUS`.
#[track_caller]
fn error_by<T>(
    call: &'static str,
    status: i32,
    code: i32,
    action: impl FnOnce() -> io::Result<T>,
) -> io::Error {
    let Err(error) = with_fault(call, status, action) else {
        panic!("{call} has failed, and no error was returned");
    };
    let cause = io::Error::from_raw_os_error(code);
    assert_eq!(error.kind(), cause.kind());
    assert!(error.to_string().starts_with(call), "{error}");
    assert!(error.to_string().ends_with(&cause.to_string()), "{error}");
    error
}

fn register(event_loop: &Loop, stream: &TcpStream, token: Token) -> io::Result<()> {
    let registrator = &event_loop.registrator;
    registrator.register(stream, token, Interests::READABLE)
}

fn register_to_write(event_loop: &Loop, stream: &TcpStream, token: Token) -> io::Result<()> {
    let registrator = &event_loop.registrator;
    registrator.register(stream, token, Interests::WRITABLE)
}

#[test]
fn a_loop_that_cannot_be_made_leaves_nothing_behind() {
    let before = count_open_handles();
    error_of(
        "CreateIoCompletionPort",
        ERROR_NO_SYSTEM_RESOURCES,
        Poll::new,
    );
    assert_eq!(count_open_handles(), before);
    Loop::new().expect_none();
}

/// The first time, when it joins the port, and later; and a refusal is none of the stream's own errors.
#[test]
fn a_stream_that_could_not_be_registered_may_be_registered_later() {
    let mut event_loop = Loop::new();
    for (call, code) in [
        ("CreateIoCompletionPort", ERROR_NO_SYSTEM_RESOURCES),
        ("WSARecv", WSAENOBUFS),
        ("WSARecv", WSAEWOULDBLOCK),
    ] {
        let (mut stream, mut peer) = readable_pair();
        error_of(call, code, || register(&event_loop, &stream, 1));
        event_loop.expect_none();
        for token in 2..4 {
            event_loop.register(&stream, token);
            event_loop.expect(&[token]);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            error_of("WSARecv", WSAENOBUFS, || register(&event_loop, &stream, 1));
            event_loop.expect_none();
            peer.write_all(b"!").unwrap();
        }
    }
}

/// A status that is an error leaves no packet.
#[test]
fn a_stream_that_could_not_be_registered_for_writing_may_be_registered_later() {
    let mut event_loop = Loop::new();
    for (status, code) in [
        (STATUS_NO_MEMORY, ERROR_NOT_ENOUGH_MEMORY),
        (STATUS_INSUFFICIENT_RESOURCES, ERROR_NO_SYSTEM_RESOURCES),
    ] {
        let (mut stream, _peer) = pair();
        for token in 1..4 {
            let ask = || register_to_write(&event_loop, &stream, 10);
            error_by("NtDeviceIoControlFile", status, code, ask);
            event_loop.expect_none();
            event_loop.register_to_write(&stream, token);
            event_loop.expect(&[token]);
            assert_eq!(stream.write(b"!").unwrap(), 1);
        }
    }
}

/// The same for a listener, and for a connection that is being made.
#[test]
fn what_could_not_be_registered_may_be_registered_later() {
    let mut event_loop = Loop::new();
    let (listener, connecting) = meeting();
    let (status, code) = (STATUS_NO_MEMORY, ERROR_NOT_ENOUGH_MEMORY);
    for token in 1..4 {
        let registrator = event_loop.registrator.clone();
        error_by("NtDeviceIoControlFile", status, code, || {
            registrator.register(&listener, 10, Interests::READABLE)
        });
        error_by("NtDeviceIoControlFile", status, code, || {
            registrator.register(&connecting, 10, Interests::WRITABLE)
        });
        event_loop.expect_none();
        event_loop.register_listener(&listener, token);
        event_loop.register_connecting(&connecting, token);
        event_loop.expect(&[token; 2]);
    }
    connecting.finish().unwrap();
    listener.accept().unwrap();
}

/// Returns a listener, and a connection to it that it has not accepted.
fn meeting() -> (TcpListener, Connecting) {
    let (listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).unwrap();
    (listener, connecting)
}

#[test]
fn a_connection_that_cannot_be_started_leaves_nothing_behind() {
    let (listener, addr) = listener();
    let before = count_open_handles();
    for (call, code) in [
        ("WSASocketW", WSAEMFILE),
        ("WSASocketW", WSAENOBUFS),
        ("connect", WSAENETUNREACH),
        ("connect", WSAENOBUFS),
    ] {
        error_of(call, code, || TcpStream::start_connect(addr));
        assert_eq!(count_open_handles(), before, "{call}");
    }
    let connecting = TcpStream::start_connect(addr).unwrap();
    listener.accept().unwrap();
    connecting.finish().unwrap();
}

/// Winsock is started once for each process, so this test runs in a process of its own. (Its exit code is not enough: under
/// Wine a process that has crashed reports success too.)
#[test]
fn winsock_that_could_not_be_started_may_be_started_later() {
    const IS_CHILD: &str = "MINIMIO_WITHOUT_WINSOCK";
    if env::var_os(IS_CHILD).is_none() {
        let test = "winsock_that_could_not_be_started_may_be_started_later";
        let mut child = Command::new(env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env(IS_CHILD, "").output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    let start = || TcpStream::start_connect(SocketAddr::from(([127, 0, 0, 1], 9)));
    error_of("WSAStartup", WSASYSNOTREADY, start);
    if let Err(error) = start() {
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
}

#[test]
fn a_question_that_could_not_be_asked_leaves_nothing_behind() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let (stream, _peer) = pair();
    let mut ask = |times| {
        for _ in 0..times {
            let ask = || register_to_write(&event_loop, &stream, 1);
            with_fault("NtDeviceIoControlFile", STATUS_NO_MEMORY, ask).unwrap_err();
        }
        event_loop.expect_none();
        (live_bytes_of_all_threads(), operations_in_flight())
    };
    let before = ask(1);
    assert_eq!(ask(100), before);
}

/// Either status says that a packet comes, whether the answer is there or not.
#[test]
fn a_question_gives_one_event_whatever_is_said_at_once() {
    let mut event_loop = Loop::new();
    for status in [STATUS_SUCCESS, STATUS_PENDING] {
        let (stream, _peer) = pair();
        for token in 1..4 {
            let ask = || register_to_write(&event_loop, &stream, token);
            with_fault("NtDeviceIoControlFile", status, ask).unwrap();
            event_loop.expect(&[token]);
        }
        drop(stream);
        event_loop.expect_none();
    }
}

/// Something is left unread; that there is an event, we say ourselves.
#[test]
fn an_event_that_could_not_be_announced_may_be_asked_for_later() {
    let mut event_loop = Loop::new();
    let (mut stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
    error_of(
        "PostQueuedCompletionStatus",
        ERROR_NOT_ENOUGH_MEMORY,
        || register(&event_loop, &stream, 2),
    );
    event_loop.expect_none();
    event_loop.register(&stream, 3);
    event_loop.expect(&[3]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// Likewise that writing was shut down.
#[test]
fn an_event_for_writing_that_could_not_be_announced_may_be_asked_for_later() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    stream.shutdown(net::Shutdown::Write).unwrap();
    error_of(
        "PostQueuedCompletionStatus",
        ERROR_NOT_ENOUGH_MEMORY,
        || register_to_write(&event_loop, &stream, 1),
    );
    event_loop.expect_none();
    event_loop.register_to_write(&stream, 2);
    event_loop.expect(&[2]);
}

#[test]
fn a_wait_that_fails_loses_no_event() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    for (token, direction) in (1..).zip(DIRECTIONS.repeat(2)) {
        let registrator = &event_loop.registrator;
        registrator.register(&stream, token, direction).unwrap();
        error_of(
            "GetQueuedCompletionStatusEx",
            ERROR_NOT_ENOUGH_MEMORY,
            || event_loop.poll.poll(&mut event_loop.events, None),
        );
        assert!(event_loop.events.is_empty(), "these were brought before");
        event_loop.expect(&[token]);
    }
}

#[test]
fn a_loop_that_could_not_be_closed_is_open() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    error_of(
        "PostQueuedCompletionStatus",
        ERROR_NOT_ENOUGH_MEMORY,
        || registrator.close_loop(),
    );
    event_loop.expect_none();
    // And it sleeps.
    let before = processor_time();
    let n = event_loop.poll.poll(&mut event_loop.events, Some(500));
    assert_eq!(n.unwrap(), 0);
    let milliseconds = (processor_time() - before) / 10_000;
    assert!(milliseconds < 50, "it has worked for {milliseconds} ms");
    registrator.close_loop().unwrap();
    let closed = event_loop.poll.poll(&mut event_loop.events, None);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Interrupted);
}

/// A read dequeues packets, its own and those of other streams.
#[test]
fn a_read_that_fails_loses_no_byte_and_no_event() {
    let mut event_loop = Loop::new();
    let ((mut stream, mut peer), (other, _other_peer)) = (pair(), readable_pair());
    stream.set_nonblocking(true).unwrap();
    event_loop.register(&stream, 1);
    event_loop.register(&other, 2);
    error_of(
        "GetQueuedCompletionStatusEx",
        ERROR_NOT_ENOUGH_MEMORY,
        || stream.read(&mut [0; 8]),
    );
    event_loop.expect(&[2]);
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[1]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// Other software may post a packet with the address of our operation. The receive goes on.
#[test]
fn a_packet_of_other_software_does_not_end_a_receive() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    with_fault("a packet that is not ours", 0, || event_loop.expect_none());
    stream.set_nonblocking(true).unwrap();
    let nothing = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[1]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// The same for a question.
#[test]
fn a_packet_of_other_software_does_not_end_a_question() {
    let mut event_loop = Loop::new();
    let (_stream, peer, written) = full_pair(&mut event_loop, 1);
    with_fault("a packet that is not ours", 0, || event_loop.expect_none());
    read_pattern(&peer, written);
    event_loop.expect(&[1]);
}

/// The same while a dropped loop counts what comes back.
#[test]
fn a_packet_of_other_software_does_not_end_the_wait_of_a_dropped_loop() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer, written) = full_pair(&mut event_loop, 1);
    event_loop.register(&stream, 1);
    with_fault("a packet that is not ours", 0, || drop(event_loop));
    assert_eq!(operations_in_flight(), 0);
    peer.write_all(b"!").unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
    read_pattern(&peer, written);
}

/// A read was faster than its packet, so that the registration goes on with a receive of its own; or else with an event.
#[test]
fn a_registration_that_cannot_go_on_ends_with_an_event() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = readable_pair();
    event_loop.register(&stream, 1);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
    set_fault(Some(("WSARecv", WSAENOBUFS)));
    assert_eq!(event_loop.wait(), [1]);
    assert_eq!(set_fault(None), None, "this did not happen");
    stream.set_nonblocking(true).unwrap();
    let nothing = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    event_loop.register(&stream, 2);
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[2]);
}

/// In either direction, and although something has been answered already.
#[test]
fn a_dropped_loop_leaves_nothing_in_flight() {
    let mut event_loop = Loop::new();
    let (_listener, _connecting, _made) = waiting_connection(&mut event_loop);
    let (full, _peer, _) = full_pair(&mut event_loop, 1);
    let (answered, _other_peer) = readable_pair();
    for stream in [&full, &answered] {
        event_loop.register(stream, 2);
    }
    event_loop.register_to_write(&answered, 3);
    let (quiet, _) = listener();
    event_loop.register_listener(&quiet, 4);
    assert_eq!(operations_in_flight(), 6);
    drop(event_loop);
    assert_eq!(operations_in_flight(), 0);
}

/// A stream or a loop that is dropped cannot tell anybody; what matters is that it is gone.
#[test]
fn what_is_dropped_is_gone_whatever_the_system_says() {
    let mut event_loop = Loop::new();
    let before = count_open_handles();
    for direction in DIRECTIONS {
        let (stream, peer, _) = stream_that_waits(direction, &mut event_loop);
        with_fault("CancelIoEx", ERROR_NOT_ENOUGH_MEMORY, || drop(stream));
        drop(peer);
        event_loop.expect_none();
        assert_eq!(count_open_handles(), before);
        assert_eq!(operations_in_flight(), 0);
    }
}

/// The same for a listener, and for a connection that is being made.
#[test]
fn what_connects_or_listens_is_gone_whatever_the_system_says() {
    let mut event_loop = Loop::new();
    let before = count_open_handles();
    for _ in 0..3 {
        let (waiting, _) = listener();
        event_loop.register_listener(&waiting, 1);
        let (listener, connecting, made) = waiting_connection(&mut event_loop);
        with_fault("CancelIoEx", ERROR_NOT_ENOUGH_MEMORY, || drop(waiting));
        with_fault("CancelIoEx", ERROR_NOT_ENOUGH_MEMORY, || drop(connecting));
        drop((listener, made));
        event_loop.expect_none();
        assert_eq!(count_open_handles(), before);
        assert_eq!(operations_in_flight(), 0);
    }
}

/// Without a packet that ends the loan, the memory is leaked; but nothing else is, and no thread waits for ever.
#[test]
fn a_loop_that_cannot_get_its_memory_back_is_gone_without_it() {
    let mut handles = Vec::new();
    for (direction, lent) in DIRECTIONS.into_iter().zip([4096, 100]) {
        for call in ["GetQueuedCompletionStatusEx", "CancelIoEx"] {
            let (live, mut event_loop) = (live_bytes_of_all_threads(), Loop::new());
            let (stream, peer, unread) = stream_that_waits(direction, &mut event_loop);
            event_loop.expect_none();
            within_patience(move || {
                with_fault(call, ERROR_NOT_ENOUGH_MEMORY, || drop(event_loop));
            });
            within_patience(move || assert_goes_on(stream, peer, unread));
            assert_eq!(operations_in_flight(), 1);
            give_up_operations();
            handles.push(count_open_handles());
            let stays = live_bytes_of_all_threads() - live;
            assert!(stays >= lent, "{stays} bytes stay");
        }
    }
    // The first time may make what is needed ever after.
    assert_eq!(handles, [handles[0]; 4]);
}

/// A posted packet lends nothing. If it does not come, the bytes that were received before are not lost.
#[test]
fn a_loop_that_cannot_get_a_posted_packet_back_leaves_the_bytes() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(b"ab").unwrap();
    event_loop.expect(&[1]);
    event_loop.register(&stream, 2); // both bytes are unread
    within_patience(move || {
        let call = "GetQueuedCompletionStatusEx";
        with_fault(call, ERROR_NOT_ENOUGH_MEMORY, || drop(event_loop));
    });
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ab");
}

/// And how much its peer has to read.
fn stream_that_waits(
    direction: Interests,
    event_loop: &mut Loop,
) -> (TcpStream, net::TcpStream, usize) {
    if direction.is_writable() {
        return full_pair(event_loop, 1);
    }
    let (stream, peer) = pair();
    event_loop.register(&stream, 1);
    (stream, peer, 0)
}

/// What a receive may still take is lost to the stream, which says so and does not wait for it. A question takes nothing.
fn assert_goes_on(mut stream: TcpStream, peer: net::TcpStream, unread: usize) {
    match unread {
        0 => drop(stream.read(&mut [0; 8]).unwrap_err()),
        _ => read_pattern(&peer, unread),
    }
}
