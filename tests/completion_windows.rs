//! Faults that only a completion backend can have: in the ownership of lent memory, in the order of the bytes in the
//! lent buffer and in the socket, and in telling which operation has ended.
#![cfg(windows)]

mod common;

use common::os::limit_send_buffer;
use common::{
    DIRECTIONS, Loop, PATIENCE, byte_at, fill, fill_from, full_pair, pair, read_pattern,
    readable_pair, within_patience,
};
use minimio::{Interests, Poll, TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::os::windows::io::AsRawSocket;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread::Scope;
use std::time::Instant;
use std::{net, thread};

#[link(name = "kernel32")]
unsafe extern "system" {
    fn CancelIoEx(file: usize, overlapped: *const u8) -> i32;
}

/// Repeats a non-blocking read until the data, which is on its way, has arrived. Needs no event.
fn read_soon(stream: &TcpStream, buffer: &mut [u8]) -> usize {
    let give_up = Instant::now() + PATIENCE;
    stream.set_nonblocking(true).unwrap();
    loop {
        match (&*stream).read(buffer) {
            Ok(n) => return n,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < give_up, "no data arrived");
        thread::yield_now();
    }
}

/// The receive is complete, and its packet is in the port. A read returns the data although no thread polls. The
/// registration then waits for the next data, with the latest token.
#[test]
fn a_read_may_be_faster_than_the_packet() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(b"abc").unwrap();
    let mut buffer = [0; 2];
    assert_eq!(read_soon(&stream, &mut buffer), 2);
    assert_eq!(read_soon(&stream, &mut buffer[..1]), 1);
    event_loop.register(&stream, 2);
    event_loop.expect_none();
    event_loop.register(&stream, 3);
    peer.write_all(b"d").unwrap();
    event_loop.expect(&[3]);
    assert_eq!(read_soon(&stream, &mut buffer), 1);
    assert_eq!(buffer[0], b'd');
}

/// If such a read leaves some of the data, there is an event for the rest.
#[test]
fn a_read_that_was_faster_and_left_something_leaves_an_event() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(b"abc").unwrap();
    let mut buffer = [0; 2];
    assert_eq!(read_soon(&stream, &mut buffer), 2);
    event_loop.expect(&[1]);
    assert_eq!(read_soon(&stream, &mut buffer), 1);
    assert_eq!(buffer[0], b'c');
}

/// Returns two streams. A read of the first one has found no data, and has dequeued the second one's packets of both
/// directions.
fn packets_that_a_read_has_dequeued(event_loop: &Loop) -> [(TcpStream, net::TcpStream); 2] {
    let (quiet, ready) = (pair(), readable_pair());
    quiet.0.set_nonblocking(true).unwrap();
    event_loop.register(&quiet.0, 1);
    event_loop.register(&ready.0, 2);
    event_loop.register_to_write(&ready.0, 3);
    let nothing = (&quiet.0).read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    [quiet, ready]
}

/// The next `poll` returns the events of these packets.
#[test]
fn a_read_that_dequeues_packets_loses_no_event() {
    let mut event_loop = Loop::new();
    let _streams = packets_that_a_read_has_dequeued(&event_loop);
    event_loop.expect(&[2, 3]);
}

/// A dropped loop waits for the packets of all operations in flight. It must not wait for those that were dequeued.
#[test]
fn a_loop_is_dropped_with_packets_that_a_read_has_dequeued() {
    let event_loop = Loop::new();
    let [_quiet, (ready, _peer)] = packets_that_a_read_has_dequeued(&event_loop);
    within_patience(move || drop(event_loop));
    assert_eq!((&ready).read(&mut [0; 8]).unwrap(), 1);
    assert_eq!((&ready).write(b"!").unwrap(), 1);
}

/// The dequeued packets wait for `poll`, but a dropped stream has no events.
#[test]
fn a_stream_whose_packets_a_read_has_dequeued_is_dropped() {
    let mut event_loop = Loop::new();
    let [_quiet, ready] = packets_that_a_read_has_dequeued(&event_loop);
    drop(ready);
    event_loop.expect_none();
}

/// A read that waits for its receive also dequeues the answer to the same stream's question.
#[test]
fn a_read_that_waits_loses_no_event_for_writing() {
    let mut event_loop = Loop::new();
    let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
    stream.set_nonblocking(false).unwrap();
    event_loop.register(&stream, 2);
    let (sender, begins) = mpsc::channel();
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            sender.send(()).unwrap();
            (&stream).read(&mut [0; 8]).unwrap()
        });
        begins.recv().unwrap();
        read_pattern(&peer, written);
        peer.write_all(b"!").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
    event_loop.expect(&[1]);
    assert_eq!((&stream).write(b"!").unwrap(), 1);
}

/// A receive and a question of one stream are in flight. When one of them ends, the other one continues.
#[test]
fn of_two_operations_each_ends_alone() {
    for ends_first in DIRECTIONS {
        let mut event_loop = Loop::new();
        let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
        event_loop.register(&stream, 1);
        for direction in [ends_first, other(ends_first)] {
            match direction.is_writable() {
                true => read_pattern(&peer, written),
                false => peer.write_all(b"!").unwrap(),
            }
            assert_eq!(event_loop.wait(), [1]);
            assert_eq!(event_loop.events[0].is_writable(), direction.is_writable());
            event_loop.expect_none();
        }
    }
}

fn other(direction: Interests) -> Interests {
    DIRECTIONS[usize::from(direction.is_readable())]
}

/// The direction that is shut down has its event, because its receive or question would otherwise never end. The other
/// direction continues to wait.
#[test]
fn to_shut_down_one_direction_ends_one_operation() {
    for direction in DIRECTIONS {
        let mut event_loop = Loop::new();
        let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
        event_loop.register(&stream, 1);
        let how = match direction.is_writable() {
            true => net::Shutdown::Write,
            false => net::Shutdown::Read,
        };
        stream.shutdown(how).unwrap();
        assert_eq!(event_loop.wait(), [1]);
        assert_eq!(event_loop.events[0].is_writable(), direction.is_writable());
        event_loop.expect_none();
        match direction.is_writable() {
            true => peer.write_all(b"!").unwrap(),
            false => read_pattern(&peer, written),
        }
        event_loop.expect(&[1]);
    }
}

/// The peer sends more than the lent buffer holds. The rest stays in the socket, and is read after the buffer.
#[test]
fn what_exceeds_the_buffer_is_read_from_the_socket() {
    const LEN: usize = 64 << 10;
    let sent: Vec<u8> = (0..LEN).map(byte_at).collect();
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(&sent).unwrap();
    event_loop.expect(&[1]);
    let mut received = vec![0; LEN];
    stream.read_exact(&mut received).unwrap();
    assert!(received == sent);
    stream.set_nonblocking(true).unwrap();
    let nothing_left = stream.read(&mut received).unwrap_err();
    assert_eq!(nothing_left.kind(), ErrorKind::WouldBlock);
}

/// After the drop, the kernel must not write a status, data or AFD's answer into memory that was freed and allocated
/// again.
#[test]
fn a_dropped_stream_is_not_written_to() {
    for is_loop_dropped_too in [false, true] {
        for _ in 0..20 {
            let is_over = AtomicBool::new(false);
            let memory =
                thread::scope(|threads| drop_while_lent(threads, &is_over, is_loop_dropped_too));
            assert!(memory.iter().flatten().all(|&byte| byte == 0xA5));
        }
    }
}

/// Returns new allocations. They take the place of the operations if these were freed too early.
fn drop_while_lent<'scope>(
    threads: &'scope Scope<'scope, '_>,
    is_over: &'scope AtomicBool,
    is_loop_dropped_too: bool,
) -> Vec<Vec<u8>> {
    let mut event_loop = Some(Loop::new());
    let (near, mut far): (Vec<_>, Vec<_>) = (0..30).map(|_| pair()).unzip();
    // These keep the connections open, so that data and room can still arrive after the streams were dropped.
    let heirs: Vec<_> = near.iter().map(common::os::duplicate).collect();
    near.iter().for_each(limit_send_buffer);
    let written: Vec<_> = near.iter().map(fill).collect();
    let registrator = event_loop.as_ref().unwrap().registrator.clone();
    let (registered, is_registered) = mpsc::channel();
    let be_busy = || while !is_over.load(SeqCst) {};
    // The kernel ends a cancelled operation on the thread that has started it. That takes a while here, because this
    // thread is busy, and so are all processors.
    threads.spawn(move || {
        for stream in &near {
            for direction in DIRECTIONS {
                registrator.register(stream, 1, direction).unwrap();
            }
        }
        drop(registrator);
        registered.send(near).unwrap();
        be_busy();
    });
    for _ in 0..4 * thread::available_parallelism().unwrap().get() {
        threads.spawn(be_busy);
    }
    drop(is_registered.recv().unwrap());
    if is_loop_dropped_too {
        event_loop = None;
    }
    let sizes = (64..4500).rev().step_by(8);
    let memory = sizes.map(|len| vec![0xA5; len]).collect();
    for (peer, written) in far.iter_mut().zip(written) {
        peer.write_all(&[0x5A; 4096]).unwrap();
        read_pattern(peer, written);
    }
    if let Some(event_loop) = &mut event_loop {
        event_loop.expect_none();
    }
    is_over.store(true, SeqCst);
    // The dropped streams have taken none of the data: the duplicates can read all of it.
    for heir in heirs.into_iter().map(net::TcpStream::from) {
        let mut all = [0; 4096];
        heir.set_nonblocking(false).unwrap();
        (&heir).read_exact(&mut all).unwrap();
        assert_eq!(all, [0x5A; 4096]);
    }
    memory
}

/// A dropped loop cancels the receives of its streams. A stream sees no error because of that, and loses no byte.
#[test]
fn a_dropped_loop_cancels_without_an_error_and_without_a_loss() {
    for is_data_there in [false, true] {
        let event_loop = Loop::new();
        let (mut stream, mut peer) = pair();
        event_loop.register(&stream, 1);
        if is_data_there {
            peer.write_all(b"one ").unwrap();
        }
        drop(event_loop);
        peer.write_all(b"two").unwrap();
        drop(peer);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, if is_data_there { "one two" } else { "two" });
    }
}

/// If other code cancels the receive, there is an event, and an error to collect. It must not look like a reset by the
/// peer.
#[test]
fn a_strangers_cancel_is_an_error_to_collect() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    // SAFETY: the socket is open, and null means all of its operations.
    let was_cancelled = unsafe { CancelIoEx(stream.as_raw_socket() as usize, std::ptr::null()) };
    assert_ne!(was_cancelled, 0);
    event_loop.expect(&[1]);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::ConnectionReset);
    // The next registration works as usual.
    event_loop.register(&stream, 2);
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[2]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

/// Such a cancel also ends a question. The event is only a hint then: there may be no room.
#[test]
fn a_strangers_cancel_is_an_event_for_writing() {
    let mut event_loop = Loop::new();
    let (mut stream, peer, mut written) = full_pair(&mut event_loop, 1);
    // SAFETY: the socket is open, and null means all of its operations.
    let was_cancelled = unsafe { CancelIoEx(stream.as_raw_socket() as usize, std::ptr::null()) };
    assert_ne!(was_cancelled, 0);
    event_loop.expect(&[1]);
    // Usually there is no room. But the system may have moved some bytes to the peer's side.
    written += fill_from(&stream, written);
    // The next registration works as usual.
    event_loop.register_to_write(&stream, 2);
    event_loop.expect_none();
    read_pattern(&peer, written);
    event_loop.expect(&[2]);
    assert_eq!(stream.write(b"!").unwrap(), 1);
}

/// Only receives and questions post packets to the port. A write that completes does not.
#[test]
fn writing_gives_no_event() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    let big = vec![7; 1 << 20];
    let reader = thread::spawn(move || {
        let mut received = vec![0; 1 << 20];
        peer.read_exact(&mut received).unwrap();
        peer
    });
    stream.write_all(&big).unwrap();
    let peer = within_patience(|| reader.join()).unwrap();
    event_loop.expect_none();
    drop(peer);
    event_loop.expect(&[1]);
}

/// While a receive is in flight, the bytes go to the lent buffer, as the documentation of `TcpStream` says.
#[test]
fn the_raw_socket_does_not_see_what_was_lent_for() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(b"lent").unwrap();
    event_loop.expect(&[1]);
    let raw = net::TcpStream::from(common::os::duplicate(&stream));
    raw.set_nonblocking(true).unwrap();
    assert_eq!(
        raw.peek(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    raw.set_nonblocking(false).unwrap();
    let mut text = [0; 8];
    assert_eq!(stream.read(&mut text).unwrap(), 4);
}

/// Windows itself would return `ERROR_INVALID_PARAMETER`, even for the port that the socket already has.
#[test]
fn a_socket_that_already_has_a_port_is_refused() {
    let first = Loop::new();
    let (stream, _peer) = pair();
    first.register(&stream, 1);
    let duplicate = TcpStream::from(net::TcpStream::from(common::os::duplicate(&stream)));
    let poll = Poll::new().unwrap();
    let refused = poll
        .registrator()
        .register(&duplicate, 2, Interests::READABLE)
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}
