//! A registration for writing gives one event when a write will not block. It is independent of one for reading.

mod common;

use common::os::duplicate;
use common::{Loop, byte_at, fill, pair, readable_pair, reset, within_patience};
use minimio::{Interests, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::thread;

/// Returns a stream that is registered for writing and has no room, its peer, and how many bytes the peer has to read.
fn full_pair(event_loop: &mut Loop, token: Token) -> (TcpStream, net::TcpStream, usize) {
    let (stream, peer) = pair();
    let written = fill(&stream) + fill_by_events(event_loop, &stream, token);
    (stream, peer, written)
}

/// The system may still move bytes to the peer's side, which makes room. An event must mean that there is room.
fn fill_by_events(event_loop: &mut Loop, stream: &TcpStream, token: Token) -> usize {
    let mut written = 0;
    while event_loop.is_writable(stream, token) {
        let more = fill(stream);
        assert_ne!(more, 0, "there is an event, but no room");
        written += more;
    }
    written
}

fn read_all(mut peer: &net::TcpStream, len: usize) {
    let mut received = vec![0; len];
    peer.read_exact(&mut received).unwrap();
}

#[test]
fn room_that_was_there_before_gives_an_event() {
    let mut event_loop = Loop::new();
    let (mut stream, _peer) = pair();
    event_loop.register_to_write(&stream, 1);
    event_loop.expect(&[1]);
    assert!(
        event_loop
            .events
            .iter()
            .all(|event| event.id() != 1 || event.is_writable())
    );
    assert_eq!(stream.write(b"!").unwrap(), 1);
}

#[test]
fn room_that_comes_later_gives_an_event() {
    let mut event_loop = Loop::new();
    let (mut stream, peer, written) = full_pair(&mut event_loop, 1);
    read_all(&peer, written);
    event_loop.expect(&[1]);
    assert_eq!(stream.write(b"!").unwrap(), 1);
}

/// Data from the peer makes no room.
#[test]
fn a_full_stream_has_no_event_before_there_is_room() {
    let mut event_loop = Loop::new();
    let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
    peer.write_all(b"!").unwrap();
    common::wait_for_data(&stream);
    let written = written + fill_by_events(&mut event_loop, &stream, 2);
    read_all(&peer, written);
    event_loop.expect(&[2]);
}

#[test]
fn one_registration_gives_one_event() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    event_loop.register_to_write(&stream, 1);
    event_loop.expect(&[1]);
    // Neither the existing room nor new room gives another event.
    event_loop.expect_none();
    stream.write_all(b"hello").unwrap();
    read_all(&peer, 5);
    event_loop.expect_none();
    event_loop.register_to_write(&stream, 2);
    event_loop.expect(&[2]);
}

#[test]
fn many_rounds_give_an_event_each() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    for token in 0..100 {
        event_loop.register_to_write(&stream, token);
        event_loop.expect(&[token]);
        stream.write_all(b"!").unwrap();
    }
    read_all(&peer, 100);
}

#[test]
fn registering_again_before_there_is_room_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (stream, peer, written) = full_pair(&mut event_loop, 1);
    for token in [2, 3] {
        event_loop.register_to_write(&stream, token);
    }
    read_all(&peer, written);
    event_loop.expect(&[3]);
    event_loop.expect_none();
}

#[test]
fn registering_again_before_the_event_was_taken_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    for token in [1, 2, 3] {
        event_loop.register_to_write(&stream, token);
    }
    event_loop.expect(&[3]);
}

#[test]
fn every_token_is_the_users() {
    let mut event_loop = Loop::new();
    let tokens = [0, 1, usize::MAX / 2, usize::MAX - 1, usize::MAX];
    let pairs = tokens.map(|_| readable_pair());
    for (token, (stream, _)) in tokens.iter().zip(&pairs) {
        event_loop.register_to_write(stream, *token);
        event_loop.register(stream, *token);
    }
    event_loop.expect(&[tokens, tokens].concat());
}

#[test]
fn an_event_tells_its_direction() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    let registrator = event_loop.registrator.clone();
    for interests in [Interests::READABLE, Interests::WRITABLE].repeat(3) {
        registrator.register(&stream, 7, interests).unwrap();
        assert_eq!(event_loop.wait(), [7]);
        let event = &event_loop.events[0];
        assert_eq!(event.is_readable(), interests.is_readable());
        assert_eq!(event.is_writable(), interests.is_writable());
    }
}

/// For an entry in the socket's error queue, Linux reports `EPOLLERR`. It does not report `EPOLLOUT`, because there is
/// no room.
#[cfg(target_os = "linux")]
#[test]
fn an_error_without_room_is_an_event_for_writing() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    if !common::os::ask_when_sent(&stream) {
        assert!(std::env::var_os("DELAYSERVER_RUNNER").is_some()); // there is an emulator
        return;
    }
    while fill(&stream) > 0 {}
    for _ in 0..3 {
        event_loop.register_to_write(&stream, 7);
        assert_eq!(event_loop.wait(), [7]);
        assert!(event_loop.events[0].is_writable());
    }
}

/// This holds whichever direction is registered first, and whichever has its event first.
#[test]
fn the_directions_do_not_know_each_other() {
    for write_first in [false, true] {
        for drain_first in [false, true] {
            let mut event_loop = Loop::new();
            let (stream, mut peer, written) = match write_first {
                true => full_pair(&mut event_loop, 2),
                false => {
                    let (stream, peer) = pair();
                    event_loop.register(&stream, 1);
                    let written = fill(&stream);
                    (stream, peer, written)
                }
            };
            event_loop.register(&stream, 1);
            event_loop.register_to_write(&stream, 2);
            match drain_first {
                true => {
                    read_all(&peer, written);
                    event_loop.expect(&[2]);
                    peer.write_all(b"!").unwrap();
                    event_loop.expect(&[1]);
                }
                false => {
                    peer.write_all(b"!").unwrap();
                    let mut came = event_loop.wait();
                    read_all(&peer, written);
                    while came.len() < 2 {
                        came.extend(event_loop.wait());
                    }
                    came.sort();
                    assert_eq!(came, [1, 2]);
                }
            }
            event_loop.expect_none();
        }
    }
}

#[test]
fn one_direction_does_not_renew_the_other() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.register_to_write(&stream, 2);
    event_loop.expect(&[1, 2]);
    event_loop.register(&stream, 3);
    event_loop.expect(&[3]);
    event_loop.register_to_write(&stream, 4);
    event_loop.expect(&[4]);
}

#[test]
fn one_direction_does_not_replace_the_token_of_the_other() {
    let mut event_loop = Loop::new();
    let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
    for token in [10, 11] {
        event_loop.register(&stream, token);
        event_loop.register_to_write(&stream, token + 10);
    }
    peer.write_all(b"!").unwrap();
    read_all(&peer, written);
    event_loop.expect(&[11, 21]);
}

/// The peer sends no more, but still reads.
#[test]
fn a_half_closed_peer_leaves_writing_possible() {
    let mut event_loop = Loop::new();
    let (stream, peer, written) = full_pair(&mut event_loop, 1);
    peer.shutdown(Shutdown::Write).unwrap();
    event_loop.register(&stream, 2);
    let came = event_loop.wait();
    assert_eq!(came, [2], "the end of the stream is an event for reading");
    read_all(&peer, written);
    event_loop.expect(&[1]);
    (&stream).write_all(b"!").unwrap();
    read_all(&peer, 1);
}

#[test]
fn after_our_own_shutdown_a_write_fails_at_once() {
    for is_registered_before in [false, true] {
        let mut event_loop = Loop::new();
        let (mut stream, _peer) = match is_registered_before {
            true => {
                let (stream, peer, _) = full_pair(&mut event_loop, 1);
                (stream, peer)
            }
            false => pair(),
        };
        stream.shutdown(Shutdown::Write).unwrap();
        if !is_registered_before {
            event_loop.register_to_write(&stream, 1);
        }
        event_loop.expect(&[1]);
        stream.write(b"!").unwrap_err();
        event_loop.register_to_write(&stream, 2);
        event_loop.expect(&[2]);
    }
}

/// The stream is registered for writing before the reset or after it.
#[test]
fn a_reset_is_an_event_and_an_error() {
    for is_registered_before in [false, true] {
        let mut event_loop = Loop::new();
        let (mut stream, peer) = match is_registered_before {
            true => {
                let (stream, peer, _) = full_pair(&mut event_loop, 1);
                (stream, peer)
            }
            false => pair(),
        };
        // This registration waits until the reset has arrived, without collecting the error.
        event_loop.register(&stream, 2);
        reset(peer);
        if is_registered_before {
            event_loop.expect(&[1, 2]);
        } else {
            event_loop.expect(&[2]);
            event_loop.register_to_write(&stream, 1);
            event_loop.expect(&[1]);
        }
        let error = stream.write(b"!").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        event_loop.register_to_write(&stream, 3);
        event_loop.expect(&[3]);
    }
}

/// The system keeps the reason for one call. Here a read gets it, so a write may fail without it.
#[test]
fn after_a_read_has_returned_a_reset_a_write_fails_all_the_same() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    event_loop.register(&stream, 1);
    reset(peer);
    event_loop.expect(&[1]);
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    event_loop.register_to_write(&stream, 2);
    event_loop.expect(&[2]);
    let kind = stream.write(b"!").unwrap_err().kind();
    let possible = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(possible.contains(&kind), "{kind:?}");
}

/// An event is a hint to try, not a promise of room that another thread may have filled.
#[test]
fn an_event_may_come_for_room_that_is_gone() {
    let mut event_loop = Loop::new();
    let (stream, peer) = pair();
    event_loop.register_to_write(&stream, 1);
    let written = fill(&stream);
    let full = (&stream).write(b"!").map_err(|error| error.kind());
    if full.is_err() {
        assert_eq!(full, Err(ErrorKind::WouldBlock));
    }
    // There is one event, for the earlier room or for the new room. The next registration works as usual.
    read_all(&peer, written);
    event_loop.expect(&[1]);
    event_loop.register_to_write(&stream, 2);
    event_loop.expect(&[2]);
}

#[test]
fn a_stream_belongs_to_one_poll_in_both_directions() {
    let (mut first, mut second) = (Loop::new(), Loop::new());
    for (mine, others) in [
        (Interests::READABLE, Interests::WRITABLE),
        (Interests::WRITABLE, Interests::READABLE),
    ] {
        let (stream, _peer) = readable_pair();
        first.registrator.register(&stream, 1, mine).unwrap();
        for interests in [mine, others] {
            let refused = second.registrator.register(&stream, 2, interests);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        first.expect(&[1]);
        second.expect_none();
    }
}

#[test]
fn registering_wakes_a_poll_that_is_waiting() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    // Once the thread has received this event, it is in its next `poll`, or about to call it.
    let (first, _peer) = pair();
    event_loop.register_to_write(&first, 1);
    let (sender, took_event) = std::sync::mpsc::channel();
    let poller = thread::spawn(move || {
        event_loop.expect(&[1]);
        sender.send(()).unwrap();
        assert_eq!(event_loop.wait(), [2]);
    });
    took_event.recv().unwrap();
    let (second, _peer) = pair();
    registrator
        .register(&second, 2, Interests::WRITABLE)
        .unwrap();
    within_patience(|| poller.join()).unwrap();
}

/// Readers and writers are always ready, and there is room for few events. Each of them has its turn, again and again.
#[test]
fn neither_direction_starves_the_other() {
    for capacity in [1, 2, 7] {
        let mut event_loop = Loop::with_capacity(capacity);
        let pairs: Vec<_> = (0..10).map(|_| readable_pair()).collect();
        for (at, (stream, _)) in pairs.iter().enumerate() {
            event_loop.register(stream, at);
            event_loop.register_to_write(stream, 100 + at);
        }
        let mut turns = [[0; 10]; 2];
        let give_up = 10_000;
        for _ in 0..give_up {
            let came = event_loop.wait();
            assert!(came.len() <= capacity);
            for token in came {
                let stream = &pairs[token % 100].0;
                turns[token / 100][token % 100] += 1;
                match token / 100 {
                    0 => event_loop.register(stream, token),
                    _ => event_loop.register_to_write(stream, token),
                }
            }
            if turns.as_flattened().iter().all(|turns| *turns >= 3) {
                break;
            }
        }
        let has_starved = turns.as_flattened().iter().any(|turns| *turns < 3);
        assert!(!has_starved, "with a capacity of {capacity}: {turns:?}");
    }
}

/// A dropped stream has no event in either direction.
#[test]
fn a_dropped_stream_has_no_event_even_if_a_duplicate_lives_on() {
    for is_full in [false, true] {
        for has_duplicate in [false, true] {
            let mut event_loop = Loop::new();
            let (stream, mut peer, written) = match is_full {
                true => full_pair(&mut event_loop, 1),
                false => {
                    let (stream, peer) = pair();
                    event_loop.register_to_write(&stream, 1);
                    (stream, peer, 0)
                }
            };
            event_loop.register(&stream, 2);
            let duplicate = has_duplicate.then(|| duplicate(&stream));
            drop(stream);
            if has_duplicate {
                peer.write_all(b"!").unwrap();
            }
            read_all(&peer, written);
            event_loop.expect_none();
            drop(duplicate);
            drop(peer);
            event_loop.expect_none();
        }
    }
}

/// What `write` has accepted arrives, whichever is dropped first.
#[test]
fn what_was_written_before_the_drop_arrives() {
    for is_loop_dropped_first in [false, true] {
        let mut event_loop = Loop::new();
        let (stream, mut peer, written) = full_pair(&mut event_loop, 1);
        event_loop.register(&stream, 2);
        match is_loop_dropped_first {
            true => drop((event_loop, stream)),
            false => drop((stream, event_loop)),
        }
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), written);
    }
}

#[test]
fn a_stream_without_its_poll_still_writes() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer, written) = full_pair(&mut event_loop, 1);
    drop(event_loop);
    read_all(&peer, written);
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut text = [0; 4];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"ping");
}

/// Each side writes as much as there is room for, reads what there is, and waits for both. No byte is lost.
#[test]
fn two_sides_send_to_each_other_as_much_as_they_can() {
    const LEN: usize = 4 << 20;
    let mut event_loop = Loop::new();
    let (near, far) = pair();
    let streams = [near, TcpStream::from(far)];
    let (mut sent, mut received, mut buffer) = ([0; 2], [0; 2], vec![0; 64 << 10]);
    for (at, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        event_loop.register(stream, at);
        event_loop.register_to_write(stream, at);
    }
    while received != [LEN; 2] {
        event_loop.wait();
        for event in &event_loop.events {
            let (at, mut stream) = (event.id(), &streams[event.id()]);
            let result = match event.is_writable() {
                true => {
                    let bytes: Vec<_> = (sent[at]..LEN).map(byte_at).take(64 << 10).collect();
                    stream.write(&bytes).map(|n| sent[at] += n)
                }
                false => stream.read(&mut buffer).map(|n| {
                    let bytes = received[at]..received[at] + n;
                    assert!(buffer[..n].iter().copied().eq(bytes.map(byte_at)));
                    received[at] += n;
                }),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                result => result.unwrap(),
            }
            if event.is_readable() {
                event_loop.register(stream, at);
            } else if sent[at] < LEN {
                event_loop.register_to_write(stream, at);
            }
        }
    }
}

/// This is the usual way to send much data: write, and wait only when there is no room.
#[test]
fn four_mebibytes_go_out_in_parts() {
    const LEN: usize = 4 << 20;
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    stream.set_nonblocking(true).unwrap();
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).map(|_| received)
    });
    let bytes: Vec<_> = (0..LEN).map(byte_at).collect();
    let (mut rest, mut waits) = (&bytes[..], 0);
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                waits += 1;
                event_loop.register_to_write(&stream, waits);
                assert_eq!(event_loop.wait(), [waits]);
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(stream);
    assert!(within_patience(|| reader.join()).unwrap().unwrap() == bytes);
}
