//! The feature `trace` tells each call to the system, in its order and its words; without it nothing is told.
//!
//! `.ci/run trace` has `strace` say whether what is told is what happened.

mod common;

use common::delayserver::standard_error_of;
use common::{pair, wait_for_data, wait_for_data_unless_lent};
use minimio::{Events, Interests, Poll, TcpListener, TcpStream};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::Barrier;
use std::thread;

/// What this and the next test tell is looked at by the last one. By themselves they show that a traced loop is a loop.
#[test]
fn a_conversation() {
    let (mut stream, mut peer) = pair();
    stream.set_nonblocking(true).unwrap();
    let mut poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let mut events = Events::with_capacity(8);
    let mut buffer = [0; 64];

    registrator
        .register(&stream, 3, Interests::READABLE)
        .unwrap();
    peer.write_all(b"hello").unwrap();
    wait_for_data_unless_lent(&stream);
    assert_eq!(poll.poll(&mut events, None).unwrap(), 1);
    assert_eq!(events[0].id(), 3);
    assert_eq!(stream.read(&mut buffer).unwrap(), 5);
    let nothing = stream.read(&mut buffer).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);

    registrator
        .register(&stream, 5, Interests::WRITABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut events, None).unwrap(), 1);
    assert_eq!(events[0].id(), 5);
    stream.write_all(b"bye").unwrap();

    registrator
        .register(&stream, 8, Interests::READABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut events, Some(0)).unwrap(), 0);
    registrator.close_loop().unwrap();
    let closed = poll.poll(&mut events, Some(1000)).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Interrupted);
    drop(stream);
}

#[test]
fn a_connection() {
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();

    let connecting = TcpStream::start_connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let registrator = poll.registrator();
    registrator
        .register(&connecting, 1, Interests::WRITABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut events, None).unwrap(), 1);
    let mut near = connecting.finish().unwrap();

    far.write_all(b"hello").unwrap();
    wait_for_data(&near);
    assert_eq!(near.read(&mut [0; 64]).unwrap(), 5);
}

/// From the first socket on. The letters stand for numbers, each for one.
const CONNECTION: &str = if cfg!(windows) {
    "\
WSASocketW(AF_INET, SOCK_STREAM, 0, WSA_FLAG_OVERLAPPED|WSA_FLAG_NO_HANDLE_INHERIT) = socket A
connect(socket A, ADDRESS) = -1 WSAEWOULDBLOCK
accept(socket B) = socket C
CreateIoCompletionPort(socket A, port D, key 0) = port D
NtDeviceIoControlFile(socket A, IOCTL_AFD_POLL, AFD_POLL_SEND|AFD_POLL_ABORT|AFD_POLL_CONNECT_FAIL, operation E) = STATUS_SUCCESS
GetQueuedCompletionStatusEx(port D, capacity 256, no timeout) = 1: [32 bytes of operation E]
WSAGetOverlappedResult(socket A, operation E) = 32 bytes
send(socket C, 5 bytes) = 5
WSARecv(socket A, 64 bytes) = 5
closesocket(socket A)
closesocket(socket C)
closesocket(socket B)
CloseHandle(port D)
"
} else if cfg!(any(target_os = "linux", target_os = "android")) && cfg!(not(minimio_kqueue)) {
    "\
socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = fd A
connect(fd A, ADDRESS) = -1 EINPROGRESS
accept(fd B) = fd C
epoll_ctl(fd D, EPOLL_CTL_ADD, fd A, EPOLLOUT|EPOLLONESHOT, token 1) = 0
epoll_wait(fd E, capacity 8, no timeout) = 1: [EPOLLIN|EPOLLRDNORM writers]
epoll_wait(fd D, capacity 8, timeout 0 ms) = 1: [EPOLLOUT token 1]
send(fd C, 5 bytes) = 5
recv(fd A, 64 bytes) = 5
epoll_ctl(fd D, EPOLL_CTL_DEL, fd A) = 0
close(fd A)
close(fd C)
close(fd B)
close(fd E)
close(fd D)
close(fd F)
"
} else {
    "\
socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0) = fd A
connect(fd A, ADDRESS) = -1 EINPROGRESS
accept(fd B) = fd C
kevent(fd D, EVFILT_WRITE fd A, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 1) = 1: [EV_ERROR 0]
kevent(fd D, capacity 8, no timeout) = 1: [EVFILT_WRITE fd A N bytes token 1]
send(fd C, 5 bytes) = 5
recv(fd A, 64 bytes) = 5
close(fd A)
close(fd C)
close(fd B)
close(fd D)
"
};

/// Likewise.
const CONVERSATION: &str = if cfg!(windows) {
    "\
CreateIoCompletionPort(INVALID_HANDLE_VALUE, no port, key 0) = port A
CreateIoCompletionPort(socket B, port A, key 0) = port A
WSARecv(socket B, 4096 bytes lent, operation C) = -1 WSA_IO_PENDING
GetQueuedCompletionStatusEx(port A, capacity 256, no timeout) = 1: [5 bytes of operation C]
WSAGetOverlappedResult(socket B, operation C) = 5 bytes
WSARecv(socket B, 64 bytes) = -1 WSAEWOULDBLOCK
NtDeviceIoControlFile(socket B, IOCTL_AFD_POLL, AFD_POLL_SEND|AFD_POLL_ABORT|AFD_POLL_CONNECT_FAIL, operation D) = STATUS_SUCCESS
GetQueuedCompletionStatusEx(port A, capacity 256, no timeout) = 1: [32 bytes of operation D]
WSAGetOverlappedResult(socket B, operation D) = 32 bytes
send(socket B, 3 bytes) = 3
WSARecv(socket B, 4096 bytes lent, operation C) = -1 WSA_IO_PENDING
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 0 WAIT_TIMEOUT
PostQueuedCompletionStatus(port A, 0 bytes, no operation) = 1
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 1: [0 bytes of no operation]
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 0 WAIT_TIMEOUT
CancelIoEx(socket B, operation C) = 1
closesocket(socket B)
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 10000 ms) = 1: [0 bytes of operation C]
CloseHandle(port A)
"
} else if cfg!(any(target_os = "linux", target_os = "android")) && cfg!(not(minimio_kqueue)) {
    "\
epoll_create1(EPOLL_CLOEXEC) = fd A
epoll_create1(EPOLL_CLOEXEC) = fd B
eventfd(0, EFD_CLOEXEC) = fd C
epoll_ctl(fd A, EPOLL_CTL_ADD, fd C, EPOLLIN, waker) = 0
epoll_ctl(fd A, EPOLL_CTL_ADD, fd B, EPOLLIN|EPOLLRDNORM, writers) = 0
epoll_ctl(fd A, EPOLL_CTL_ADD, fd D, EPOLLIN|EPOLLONESHOT, token 3) = 0
epoll_wait(fd A, capacity 8, no timeout) = 1: [EPOLLIN token 3]
recv(fd D, 64 bytes) = 5
recv(fd D, 64 bytes) = -1 EAGAIN
epoll_ctl(fd B, EPOLL_CTL_ADD, fd D, EPOLLOUT|EPOLLONESHOT, token 5) = 0
epoll_wait(fd A, capacity 8, no timeout) = 1: [EPOLLIN|EPOLLRDNORM writers]
epoll_wait(fd B, capacity 8, timeout 0 ms) = 1: [EPOLLOUT token 5]
send(fd D, 3 bytes) = 3
epoll_ctl(fd A, EPOLL_CTL_MOD, fd D, EPOLLIN|EPOLLONESHOT, token 8) = 0
epoll_wait(fd A, capacity 8, timeout 0 ms) = 0
write(fd C, 8 bytes) = 8
epoll_wait(fd A, capacity 8, timeout 1000 ms) = 1: [EPOLLIN waker]
epoll_ctl(fd A, EPOLL_CTL_DEL, fd D) = 0
epoll_ctl(fd B, EPOLL_CTL_DEL, fd D) = 0
close(fd D)
close(fd A)
close(fd B)
close(fd C)
"
} else if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
    "\
kqueue() = fd A
fcntl(fd A, F_SETFD, FD_CLOEXEC) = 0
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_RECEIPT, waker) = 1: [EV_ERROR 0]
kevent(fd A, EVFILT_READ fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 3) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_READ fd C 5 bytes token 3]
recv(fd C, 64 bytes) = 5
recv(fd C, 64 bytes) = -1 EAGAIN
kevent(fd A, EVFILT_WRITE fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 5) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_WRITE fd C N bytes token 5]
send(fd C, 3 bytes) = 3
kevent(fd A, EVFILT_READ fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 8) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 0 ms) = 0
write(fd D, 1 bytes) = 1
kevent(fd A, capacity 8, timeout 1000 ms) = 1: [EVFILT_READ fd B 1 bytes waker]
close(fd C)
close(fd A)
"
} else {
    "\
kqueue() = fd A
fcntl(fd A, F_SETFD, FD_CLOEXEC) = 0
kevent(fd A, EVFILT_USER 0, EV_ADD|EV_RECEIPT, waker) = 1: [EV_ERROR 0]
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 3) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_READ fd B 5 bytes token 3]
recv(fd B, 64 bytes) = 5
recv(fd B, 64 bytes) = -1 EAGAIN
kevent(fd A, EVFILT_WRITE fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 5) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_WRITE fd B N bytes token 5]
send(fd B, 3 bytes) = 3
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 8) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 0 ms) = 0
kevent(fd A, EVFILT_USER 0, EV_ADD|EV_RECEIPT, NOTE_TRIGGER, waker) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 1000 ms) = 1: [EVFILT_USER 0 waker]
close(fd B)
close(fd A)
"
};

#[test]
fn it_is_told_in_the_systems_words_or_not_at_all() {
    for (test, from, words) in [
        ("a_conversation", "", CONVERSATION),
        ("a_connection", "(AF_INET, ", CONNECTION),
    ] {
        let told = standard_error_of(test);
        if !cfg!(feature = "trace") {
            assert_eq!(told, "");
            continue;
        }
        let mut numbers = Vec::new();
        let lines = told.lines().skip_while(|line| !line.contains(from));
        let canonical: String = lines
            .map(|line| canonical(test, line, &mut numbers))
            .collect();
        assert_eq!(canonical, words, "this was told:\n{told}");
    }
}

#[test]
fn workers() {
    let poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let start = Barrier::new(WORKERS);
    thread::scope(|threads| {
        for _ in 0..WORKERS {
            let work = || {
                let (stream, _peer) = pair();
                start.wait();
                for token in 0..100 {
                    registrator
                        .register(&stream, token, Interests::READABLE)
                        .unwrap();
                }
            };
            let worker = thread::Builder::new().name("worker".into());
            worker.spawn_scoped(threads, work).unwrap();
        }
    });
}

const WORKERS: usize = 4;

#[test]
fn the_times_are_in_the_order_of_the_lines() {
    let told = standard_error_of("workers");
    let times: Vec<f64> = told.lines().map(|line| time(line).0).collect();
    assert!(times.is_sorted(), "{told}");
}

#[test]
fn threads_with_the_same_name_can_be_told_apart() {
    let told = standard_error_of("workers");
    let of_workers = told
        .lines()
        .filter_map(|line| time(line).1.split(' ').next())
        .filter(|name| name.starts_with("worker") && *name != "workers");
    let names: BTreeSet<_> = of_workers.collect();
    match cfg!(feature = "trace") {
        true => assert_eq!(
            names,
            BTreeSet::from(["worker", "worker#2", "worker#3", "worker#4"])
        ),
        false => assert!(names.is_empty()),
    }
}

/// What is the same each time. The rest is a time, a thread, and how long the call took, unless `std` has made it and says
/// nothing of what came of it.
fn canonical(test: &str, line: &str, numbers: &mut Vec<String>) -> String {
    let rest = time(line).1.strip_prefix(test).expect(line).trim_start();
    let Some((words, took)) = rest.rsplit_once("  (") else {
        assert!(!rest.contains(" = "), "{line}");
        return lettered(rest, numbers) + "\n";
    };
    let took = took.strip_suffix(" ms)").expect(line);
    took.parse::<f64>().expect(line);
    lettered(words, numbers) + "\n"
}

fn time(line: &str) -> (f64, &str) {
    let (at, rest) = line.trim_start().split_once(" ms  ").expect(line);
    (at.parse().expect(line), rest)
}

fn lettered(words: &str, numbers: &mut Vec<String>) -> String {
    const ENDS: [char; 6] = [' ', ',', '(', ')', '[', ']'];
    let (mut lettered, mut before) = (String::new(), "");
    // How much room there is in a send buffer is the system's business.
    let mut is_room = false;
    for part in words.split_inclusive(ENDS) {
        let word = part.trim_end_matches(ENDS);
        match before {
            "fd" | "port" | "socket" | "operation" if word.starts_with(char::is_numeric) => {
                lettered.push(letter(word, numbers));
                lettered += &part[word.len()..];
            }
            _ if word.starts_with("127.0.0.1:") => lettered += &part.replace(word, "ADDRESS"),
            // These came back with an event of kqueue's, and are not the same on all systems. (What we pass stands after a
            // comma or a bracket.)
            _ if word.starts_with("EV_") && !before.is_empty() => (),
            _ if is_room && word.parse::<usize>().is_ok() => {
                is_room = false;
                lettered += "N ";
            }
            _ => lettered += part,
        }
        is_room |= word == "EVFILT_WRITE" && words.contains(": [EVFILT_WRITE");
        before = word;
    }
    lettered
}

fn letter(number: &str, numbers: &mut Vec<String>) -> char {
    let at = numbers.iter().position(|known| known == number);
    let at = at.unwrap_or_else(|| {
        numbers.push(number.into());
        numbers.len() - 1
    });
    char::from(b'A' + at as u8)
}
