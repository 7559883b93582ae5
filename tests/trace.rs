//! The feature `trace` tells each call to the system, in its order and its words; without it nothing is told.
//!
//! `.ci/run trace` has `strace` say whether what is told is what happened.

mod common;

use common::delayserver::by_runner;
use common::{pair, wait_for_data_unless_lent};
use minimio::{Events, Interests, Poll};
use std::env;
use std::io::{ErrorKind, Read, Write};
use std::process::Stdio;

/// What the other test has told. By itself it shows that a traced loop is a loop.
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

    registrator
        .register(&stream, 8, Interests::READABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut events, Some(0)).unwrap(), 0);
    registrator.close_loop().unwrap();
    let closed = poll.poll(&mut events, Some(1000)).unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Interrupted);
    drop(stream);
}

/// The letters stand for numbers, each for one.
const CONVERSATION: &str = if cfg!(windows) {
    "\
CreateIoCompletionPort(INVALID_HANDLE_VALUE, no port, key 0) = port A
CreateIoCompletionPort(socket B, port A, key 0) = port A
WSARecv(socket B, 4096 bytes lent, operation C) = -1 WSA_IO_PENDING
GetQueuedCompletionStatusEx(port A, capacity 256, no timeout) = 1: [5 bytes of operation C] (waited)
WSAGetOverlappedResult(socket B, operation C) = 5 bytes
WSARecv(socket B, 64 bytes) = -1 WSAEWOULDBLOCK (waited)
NtDeviceIoControlFile(socket B, IOCTL_AFD_POLL, AFD_POLL_SEND|AFD_POLL_ABORT|AFD_POLL_CONNECT_FAIL, operation D) = STATUS_SUCCESS
GetQueuedCompletionStatusEx(port A, capacity 256, no timeout) = 1: [32 bytes of operation D] (waited)
WSAGetOverlappedResult(socket B, operation D) = 32 bytes
WSARecv(socket B, 4096 bytes lent, operation C) = -1 WSA_IO_PENDING
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 0 WAIT_TIMEOUT (waited)
PostQueuedCompletionStatus(port A, 0 bytes, no operation) = 1
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 1: [0 bytes of no operation] (waited)
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 0 ms) = 0 WAIT_TIMEOUT (waited)
CancelIoEx(socket B, operation C) = 1
GetQueuedCompletionStatusEx(port A, capacity 256, timeout 10000 ms) = 1: [0 bytes of operation C] (waited)
"
} else if cfg!(any(target_os = "linux", target_os = "android")) && cfg!(not(minimio_kqueue)) {
    "\
epoll_create1(EPOLL_CLOEXEC) = fd A
epoll_create1(EPOLL_CLOEXEC) = fd B
eventfd(0, EFD_CLOEXEC) = fd C
epoll_ctl(fd A, EPOLL_CTL_ADD, fd C, EPOLLIN, token 0) = 0
epoll_ctl(fd A, EPOLL_CTL_ADD, fd B, EPOLLIN|EPOLLRDNORM, token 0) = 0
epoll_ctl(fd A, EPOLL_CTL_ADD, fd D, EPOLLIN|EPOLLONESHOT, token 3) = 0
epoll_wait(fd A, capacity 8, no timeout) = 1: [EPOLLIN token 3] (waited)
recv(fd D, 64 bytes) = 5 (waited)
recv(fd D, 64 bytes) = -1 EAGAIN (waited)
epoll_ctl(fd B, EPOLL_CTL_ADD, fd D, EPOLLOUT|EPOLLONESHOT, token 5) = 0
epoll_wait(fd A, capacity 8, no timeout) = 1: [EPOLLIN|EPOLLRDNORM token 0] (waited)
epoll_wait(fd B, capacity 8, timeout 0 ms) = 1: [EPOLLOUT token 5] (waited)
epoll_ctl(fd A, EPOLL_CTL_MOD, fd D, EPOLLIN|EPOLLONESHOT, token 8) = 0
epoll_wait(fd A, capacity 8, timeout 0 ms) = 0 (waited)
write(fd C, 8 bytes) = 8 (waited)
epoll_wait(fd A, capacity 8, timeout 1000 ms) = 1: [EPOLLIN token 0] (waited)
epoll_ctl(fd A, EPOLL_CTL_DEL, fd D) = 0
epoll_ctl(fd B, EPOLL_CTL_DEL, fd D) = 0
"
} else if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
    "\
kqueue() = fd A
fcntl(fd A, F_SETFD, FD_CLOEXEC) = 0
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_RECEIPT, token 0) = 1: [EV_ERROR 0]
kevent(fd A, EVFILT_READ fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 3) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_READ fd C 5 bytes token 3] (waited)
recv(fd C, 64 bytes) = 5 (waited)
recv(fd C, 64 bytes) = -1 EAGAIN (waited)
kevent(fd A, EVFILT_WRITE fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 5) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_WRITE fd C N bytes token 5] (waited)
kevent(fd A, EVFILT_READ fd C, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 8) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 0 ms) = 0 (waited)
write(fd D, 1 bytes) = 1 (waited)
kevent(fd A, capacity 8, timeout 1000 ms) = 1: [EVFILT_READ fd B 1 bytes token 0] (waited)
"
} else {
    "\
kqueue() = fd A
fcntl(fd A, F_SETFD, FD_CLOEXEC) = 0
kevent(fd A, EVFILT_USER 0, EV_ADD|EV_RECEIPT, token 0) = 1: [EV_ERROR 0]
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 3) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_READ fd B 5 bytes token 3] (waited)
recv(fd B, 64 bytes) = 5 (waited)
recv(fd B, 64 bytes) = -1 EAGAIN (waited)
kevent(fd A, EVFILT_WRITE fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 5) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, no timeout) = 1: [EVFILT_WRITE fd B N bytes token 5] (waited)
kevent(fd A, EVFILT_READ fd B, EV_ADD|EV_ONESHOT|EV_RECEIPT, token 8) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 0 ms) = 0 (waited)
kevent(fd A, EVFILT_USER 0, EV_ADD|EV_RECEIPT, NOTE_TRIGGER, token 0) = 1: [EV_ERROR 0]
kevent(fd A, capacity 8, timeout 1000 ms) = 1: [EVFILT_USER 0 token 0] (waited)
"
};

#[test]
fn it_is_told_in_the_systems_words_or_not_at_all() {
    let told = standard_error_of("a_conversation");
    if !cfg!(feature = "trace") {
        assert_eq!(told, "");
        return;
    }
    let mut numbers = Vec::new();
    let words: String = told
        .lines()
        .map(|line| canonical(line, &mut numbers))
        .collect();
    assert_eq!(words, CONVERSATION, "this was told:\n{told}");
}

/// By a program of its own, for a standard error of its own.
fn standard_error_of(test: &str) -> String {
    let program = env::args_os().next().expect("the program's own name");
    let output = by_runner(program)
        .args(["--exact", test, "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .expect("this program");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// What is the same each time. That the rest is a time, a thread and, for a wait, how long it took, is seen to here.
fn canonical(line: &str, numbers: &mut Vec<String>) -> String {
    let (began, rest) = line.trim_start().split_once(" ms  ").expect(line);
    began.parse::<f64>().expect(line);
    let rest = rest.strip_prefix("a_conversation  ").expect(line);
    let taken = rest
        .strip_suffix(" ms)")
        .map(|rest| rest.rsplit_once("  (").expect(line));
    match taken {
        Some((words, took)) => {
            took.parse::<f64>().expect(line);
            lettered(words, numbers) + " (waited)\n"
        }
        None => lettered(rest, numbers) + "\n",
    }
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
