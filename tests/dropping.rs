//! Streams, registrators and the loop may be dropped in any order. A dropped stream has no events, and no call uses the
//! number of a closed descriptor.

mod common;

use common::os::{duplicate, limit_send_buffer};
use common::{
    DIRECTIONS, Loop, STATES, State, fill, pair, readable_pair, stream_in, within_patience,
};
use minimio::{Events, Interests, Poll, TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::net;
use std::thread;

#[test]
fn every_order_of_dropping_is_safe_in_every_state() {
    for state in STATES {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut event_loop = Loop::new();
            let (stream, mut peer) = stream_in(state, &mut event_loop);
            let Loop {
                poll,
                registrator,
                events,
                ..
            } = event_loop;
            let (mut poll, mut registrator, mut stream) =
                (Some(poll), Some(registrator), Some(stream));
            for step in order {
                match step {
                    0 => drop(poll.take()),
                    1 => drop(registrator.take()),
                    _ => drop(stream.take()),
                }
                // Registering works until the `Poll` is dropped, and is an error after that.
                if let (Some(registrator), Some(stream)) = (&registrator, &stream) {
                    for direction in DIRECTIONS {
                        let result = registrator.register(stream, 2, direction);
                        assert_eq!(result.is_ok(), poll.is_some(), "{state:?}, {order:?}");
                    }
                }
                if let Some(poll) = &mut poll {
                    let n = poll.poll(&mut Events::with_capacity(8), Some(0)).unwrap();
                    assert!(
                        n == 0 || stream.is_some(),
                        "an event of a dropped stream: {state:?}, {order:?}"
                    );
                }
                let _ = peer.write_all(b"?");
            }
            drop(events);
        }
    }
}

#[test]
fn a_dropped_stream_has_no_event() {
    for state in STATES {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = stream_in(state, &mut event_loop);
        drop(stream);
        let _ = peer.write_all(b"!");
        event_loop.expect_none();
        drop(peer);
        event_loop.expect_none();
    }
}

/// epoll keeps watching a connection until the last of its descriptors is closed.
#[test]
fn a_dropped_stream_has_no_event_even_if_a_duplicate_lives_on() {
    for state in STATES {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = stream_in(state, &mut event_loop);
        let duplicate = duplicate(&stream);
        drop(stream);
        peer.write_all(b"!").unwrap();
        event_loop.expect_none();

        // The connection is still open, and may be registered again.
        let mut again = TcpStream::from(net::TcpStream::from(duplicate));
        if state.is_unregistered() {
            event_loop.register(&again, 3);
            event_loop.expect(&[3]);
        }
        again.shutdown(net::Shutdown::Both).unwrap();
        let _ = again.read(&mut [0; 8]);
        event_loop.expect_none();
    }
}

/// Dropping a registered stream closes the connection normally: the peer receives all data and then the end of the
/// stream, not a reset.
#[test]
fn what_was_written_before_the_drop_arrives() {
    let mut event_loop = Loop::new();
    let is_as_any_other = |state: &State| !state.has_unread() && !state.is_full();
    for state in STATES.into_iter().filter(is_as_any_other) {
        let (mut stream, mut peer) = stream_in(state, &mut event_loop);
        stream.write_all(b"goodbye").unwrap();
        drop(stream);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "goodbye");
    }
}

#[test]
fn a_registrator_without_its_poll_touches_nobody_elses_queue() {
    let (stream, _peer) = readable_pair();
    let (known, _peer2) = readable_pair();
    let old = Loop::new();
    old.register(&known, 1);
    let Loop {
        poll, registrator, ..
    } = old;
    drop(poll);
    // These loops probably get the descriptor numbers of the old one.
    let mut loops: Vec<_> = (0..4).map(|_| Loop::new()).collect();
    for stream in [&stream, &known] {
        let refused = registrator
            .register(stream, 2, Interests::READABLE)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Interrupted);
    }
    assert_eq!(
        registrator.close_loop().unwrap_err().kind(),
        ErrorKind::Interrupted
    );
    for event_loop in &mut loops {
        event_loop.expect_none();
    }
}

#[test]
fn a_stream_without_its_poll_still_reads_and_writes() {
    for state in STATES {
        let mut event_loop = Loop::new();
        let (mut stream, mut peer) = stream_in(state, &mut event_loop);
        drop(event_loop);
        let mut text = Vec::new();
        thread::scope(|threads| {
            // If the send buffer is full, this waits until the peer reads.
            threads.spawn(|| {
                (&stream).write_all(b"ping").unwrap();
                stream.shutdown(net::Shutdown::Write).unwrap();
            });
            peer.read_to_end(&mut text).unwrap();
        });
        assert!(text.ends_with(b"ping"), "{state:?}");
        peer.write_all(b"pong").unwrap();
        drop(peer);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        let expected = if state.has_unread() { "!pong" } else { "pong" };
        assert_eq!(rest, expected, "{state:?}");
    }
}

#[test]
fn a_poll_without_registrators_still_polls() {
    let event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    let Loop {
        mut poll,
        registrator,
        mut events,
        ..
    } = event_loop;
    drop(registrator);
    assert_eq!(poll.poll(&mut events, Some(60_000)).unwrap(), 1);
    assert_eq!(events[0].id(), 1);
    // The poll can also return a new registrator.
    poll.registrator()
        .register(&stream, 2, Interests::READABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut events, Some(60_000)).unwrap(), 1);
    assert_eq!(events[0].id(), 2);
}

#[test]
fn streams_may_be_dropped_while_another_thread_waits() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let poller = thread::spawn(move || {
        loop {
            for token in event_loop.wait() {
                match token {
                    1 => (), // returned before its stream was dropped
                    2 => return event_loop,
                    _ => panic!("no stream has the token {token}"),
                }
            }
        }
    });
    for round in 0..500 {
        let (stream, mut peer) = pair();
        if round % 4 < 2 {
            limit_send_buffer(&stream);
            fill(&stream);
        }
        for direction in DIRECTIONS {
            registrator.register(&stream, 1, direction).unwrap();
        }
        if round % 2 == 0 {
            peer.write_all(b"!").unwrap();
        }
        drop(stream);
    }
    let (last, _peer) = readable_pair();
    registrator.register(&last, 2, Interests::READABLE).unwrap();
    let mut event_loop = within_patience(|| poller.join()).unwrap();
    event_loop.expect_none();
}

/// There is room for one event. A stream that waits to write may be dropped when its turn has come, and then the turn of
/// the stream that can be read comes at once.
#[test]
fn a_stream_that_is_dropped_hides_no_event_of_another() {
    let mut event_loop = Loop::with_capacity(1);
    let (readable, _peer) = readable_pair();
    event_loop.register(&readable, 1);
    event_loop.expect(&[1]);
    let registrator = event_loop.registrator.clone();
    let dropper = thread::spawn(move || {
        for _ in 0..50 {
            let (streams, _peers): (Vec<_>, Vec<_>) = (0..100).map(|_| pair()).unzip();
            for stream in streams {
                registrator
                    .register(&stream, 2, Interests::WRITABLE)
                    .unwrap();
            }
        }
    });
    event_loop.register(&readable, 1);
    while !dropper.is_finished() {
        let came = event_loop.poll.poll(&mut event_loop.events, Some(0));
        assert_eq!(came.unwrap(), 1, "the event of the readable stream");
        if event_loop.events[0].id() == 1 {
            event_loop.register(&readable, 1);
        }
    }
    dropper.join().unwrap();
}

#[test]
fn a_poll_may_be_dropped_while_others_register() {
    for _ in 0..50 {
        let poll = Poll::new().unwrap();
        let threads: Vec<_> = DIRECTIONS
            .repeat(2)
            .into_iter()
            .map(|direction| {
                let registrator = poll.registrator();
                thread::spawn(move || {
                    let (stream, _peer) = readable_pair();
                    loop {
                        match registrator.register(&stream, 1, direction) {
                            Ok(()) => (),
                            Err(error) => return error.kind(),
                        }
                    }
                })
            })
            .collect();
        drop(poll);
        for thread in threads {
            assert_eq!(
                within_patience(|| thread.join()).unwrap(),
                ErrorKind::Interrupted
            );
        }
    }
}
