//! `register` asks for one event, with one token, about one stream.

mod common;

use common::{Loop, pair, readable_pair, within_patience};
use minimio::{Interests, Poll};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

#[test]
fn data_that_was_there_before_gives_an_event() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
}

#[test]
fn data_that_comes_later_gives_an_event() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    event_loop.expect_none();
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[1]);
}

#[test]
fn a_stream_that_is_not_registered_gives_no_event() {
    let mut event_loop = Loop::new();
    let (_stream, _peer) = readable_pair();
    event_loop.expect_none();
}

#[test]
fn one_registration_gives_one_event() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
    // Neither unread data, nor new data, nor the end of the stream gives another event.
    event_loop.expect_none();
    peer.write_all(b"more").unwrap();
    common::wait_for_data(&stream);
    event_loop.expect_none();
    peer.shutdown(Shutdown::Write).unwrap();
    event_loop.expect_none();

    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
}

#[test]
fn what_is_left_unread_gives_an_event_when_registered_again() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    peer.write_all(b"abc").unwrap();
    for expected in b"abc" {
        event_loop.register(&stream, 1);
        event_loop.expect(&[1]);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [*expected]);
    }
    event_loop.register(&stream, 1);
    event_loop.expect_none();
}

#[test]
fn many_rounds_give_an_event_each() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    for token in 0..100 {
        event_loop.register(&stream, token);
        peer.write_all(&[token as u8]).unwrap();
        event_loop.expect(&[token]);
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [token as u8]);
    }
}

#[test]
fn registering_again_before_the_data_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    for token in [1, 2, 3] {
        event_loop.register(&stream, token);
    }
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[3]);
}

#[test]
fn registering_again_asks_for_nothing_more() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    let mut byte = [0];
    for token in [1, 2, 3] {
        event_loop.register(&stream, token);
    }
    peer.write_all(b"a").unwrap();
    event_loop.expect(&[3]);
    stream.read_exact(&mut byte).unwrap();
    // This byte stays unread, and is no event, because the stream is not registered.
    peer.write_all(b"b").unwrap();
    event_loop.expect_none();
    event_loop.register(&stream, 4);
    event_loop.expect(&[4]);
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"b");
}

#[test]
fn registering_again_before_the_event_was_taken_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    for token in [1, 2, 3] {
        event_loop.register(&stream, token);
    }
    event_loop.expect(&[3]);
}

#[test]
fn every_token_is_the_users() {
    let mut event_loop = Loop::new();
    let tokens = [0, 1, usize::MAX / 2, usize::MAX - 1, usize::MAX];
    let pairs = tokens.map(|_| readable_pair());
    for (token, (stream, _)) in tokens.iter().zip(&pairs) {
        event_loop.register(stream, *token);
    }
    event_loop.expect(&tokens);
}

#[test]
fn streams_may_share_a_token() {
    let mut event_loop = Loop::new();
    let ((one, _peer), (other, _peer2)) = (readable_pair(), readable_pair());
    event_loop.register(&one, 5);
    event_loop.register(&other, 5);
    event_loop.expect(&[5, 5]);
}

#[test]
fn the_end_of_the_stream_gives_an_event_whenever_asked() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    event_loop.register(&stream, 1);
    drop(peer);
    event_loop.expect(&[1]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    event_loop.register(&stream, 2);
    event_loop.expect(&[2]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn the_peers_shutdown_gives_an_event_after_its_data() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    peer.write_all(b"bye").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut text = [0; 3];
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"bye");
    event_loop.register(&stream, 2);
    event_loop.expect(&[2]);
    assert_eq!(stream.read(&mut text).unwrap(), 0);
}

/// An event is a hint to try, not a promise of bytes that another thread may have read.
#[test]
fn an_event_may_come_for_data_that_is_gone() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    stream.set_nonblocking(true).unwrap();
    event_loop.register(&stream, 1);
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[1]);
    std::thread::scope(|threads| {
        threads.spawn(|| assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 1));
    });
    assert_eq!(
        (&stream).read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    // The next registration works as usual.
    event_loop.register(&stream, 2);
    event_loop.expect_none();
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[2]);
}

#[test]
fn registering_wakes_a_poll_that_is_waiting() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    // Once the thread has received this event, it is in its next `poll`, or about to call it.
    let (first, _peer) = readable_pair();
    event_loop.register(&first, 1);
    let (sender, took_event) = std::sync::mpsc::channel();
    let poller = std::thread::spawn(move || {
        event_loop.expect(&[1]);
        sender.send(()).unwrap();
        event_loop.expect(&[2]);
    });
    took_event.recv().unwrap();
    let (second, _peer) = readable_pair();
    registrator
        .register(&second, 2, Interests::READABLE)
        .unwrap();
    within_patience(|| poller.join()).unwrap();
}

#[test]
fn interests_tell_what_they_are() {
    assert!(Interests::READABLE.is_readable() && !Interests::READABLE.is_writable());
    assert!(Interests::WRITABLE.is_writable() && !Interests::WRITABLE.is_readable());
    assert_ne!(Interests::READABLE, Interests::WRITABLE);
}

#[test]
fn a_stream_belongs_to_one_poll() {
    let (mut first, mut second) = (Loop::new(), Loop::new());
    let (stream, mut peer) = pair();
    first.register(&stream, 1);
    let refused = second
        .registrator
        .register(&stream, 2, Interests::READABLE)
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    peer.write_all(b"!").unwrap();
    first.expect(&[1]);
    second.expect_none();
}

#[test]
fn a_stream_belongs_to_its_poll_even_when_that_is_gone() {
    let (stream, _peer) = pair();
    let first = Poll::new().unwrap();
    first
        .registrator()
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    drop(first);
    let second = Loop::new();
    let refused = second
        .registrator
        .register(&stream, 2, Interests::READABLE)
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// A stream does not belong to a poll that has refused it. (If the system's call has failed, it may.)
#[test]
fn a_stream_that_was_refused_may_go_to_another_poll() {
    let (stream, _peer) = readable_pair();
    let closed = Poll::new().unwrap().registrator();
    closed
        .register(&stream, 1, Interests::READABLE)
        .unwrap_err();
    let mut event_loop = Loop::new();
    event_loop.register(&stream, 2);
    event_loop.expect(&[2]);
}
