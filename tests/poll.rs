//! `poll` waits until there are events or the timeout expires, and never returns earlier.

mod common;

use common::os::allow_open_handles;
use common::{Loop, pair, readable_pair, within_patience};
use minimio::{Event, Events, Interests, Poll};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

#[test]
fn it_returns_how_many_events_there_are() {
    let mut event_loop = Loop::new();
    let pairs: Vec<_> = (0..10).map(|_| readable_pair()).collect();
    for (token, (stream, _)) in pairs.iter().enumerate() {
        event_loop.register(stream, token);
    }
    let mut tokens = HashSet::new();
    while tokens.len() < pairs.len() {
        let n = event_loop
            .poll
            .poll(&mut event_loop.events, Some(60_000))
            .unwrap();
        assert!(n >= 1);
        assert_eq!(n, event_loop.events.len());
        tokens.extend(event_loop.events.iter().map(Event::id));
    }
    assert_eq!(tokens, HashSet::from_iter(0..10));
}

#[test]
fn what_exceeds_the_capacity_comes_with_the_next_call() {
    for capacity in [1, 2, 7] {
        let mut event_loop = Loop::with_capacity(capacity);
        let pairs: Vec<_> = (0..50).map(|_| readable_pair()).collect();
        for (token, (stream, _)) in pairs.iter().enumerate() {
            event_loop.register(stream, token);
        }
        let mut tokens = Vec::new();
        while tokens.len() < pairs.len() {
            let some = event_loop.wait();
            assert!(
                some.len() <= capacity,
                "{} events with a capacity of {capacity}",
                some.len()
            );
            tokens.extend(some);
        }
        tokens.sort();
        assert_eq!(tokens, Vec::from_iter(0..50));
        event_loop.expect_none();
    }
}

#[test]
fn no_capacity_is_an_error() {
    let mut event_loop = Loop::with_capacity(0);
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    for timeout in [None, Some(0), Some(10)] {
        let error = event_loop
            .poll
            .poll(&mut event_loop.events, timeout)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    event_loop.events = Events::with_capacity(8);
    event_loop.expect(&[1]);
}

#[test]
fn any_capacity_will_do() {
    let mut event_loop = Loop::with_capacity(usize::MAX);
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
}

/// Each of many short waits lasts at least as long as its timeout. (How much longer depends on the machine.)
#[test]
fn a_timeout_never_ends_early() {
    let mut event_loop = Loop::new();
    for round in 0..40 {
        for ms in [1, 2, 3, 5, 10] {
            let started = Instant::now();
            let n = event_loop
                .poll
                .poll(&mut event_loop.events, Some(ms))
                .unwrap();
            let waited = started.elapsed();
            assert_eq!(n, 0);
            assert!(
                waited >= Duration::from_millis(ms as u64),
                "{ms} ms took {waited:?} in round {round}"
            );
        }
    }
}

#[test]
fn a_timeout_of_zero_or_less_does_not_wait() {
    within_patience(|| {
        let mut event_loop = Loop::new();
        for ms in [0, -1, -2, i32::MIN] {
            assert_eq!(
                event_loop
                    .poll
                    .poll(&mut event_loop.events, Some(ms))
                    .unwrap(),
                0
            );
        }
    });
}

#[test]
fn a_timeout_of_zero_or_less_brings_what_is_there() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    for ms in [0, -1, i32::MIN] {
        event_loop.register(&stream, 1);
        // In a completion queue, the event arrives a moment after `register`, even if the data was already there.
        let give_up = Instant::now() + common::PATIENCE;
        while event_loop
            .poll
            .poll(&mut event_loop.events, Some(ms))
            .unwrap()
            == 0
        {
            assert!(Instant::now() < give_up, "no event came");
        }
        assert_eq!(event_loop.events[0].id(), 1);
    }
}

#[test]
fn the_longest_timeout_is_cut_short_by_an_event() {
    within_patience(|| {
        let mut event_loop = Loop::new();
        let (stream, _peer) = readable_pair();
        event_loop.register(&stream, 1);
        assert_eq!(
            event_loop
                .poll
                .poll(&mut event_loop.events, Some(i32::MAX))
                .unwrap(),
            1
        );
    });
}

#[test]
fn no_timeout_waits_until_there_is_an_event() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    let poller = std::thread::spawn(move || {
        let n = event_loop.poll.poll(&mut event_loop.events, None).unwrap();
        (n, event_loop)
    });
    // The timeout of another loop serves as the clock. During this time, the first loop has no reason to return.
    assert_eq!(
        Poll::new()
            .unwrap()
            .poll(&mut Events::with_capacity(1), Some(300))
            .unwrap(),
        0
    );
    assert!(!poller.is_finished());
    peer.write_all(b"!").unwrap();
    let (n, event_loop) = within_patience(|| poller.join()).unwrap();
    assert_eq!((n, event_loop.events[0].id()), (1, 1));
}

/// On Windows, a read that finds no data dequeues packets, and has to keep those of other streams for `poll`.
#[test]
fn a_read_of_one_stream_takes_no_event_of_another() {
    let mut event_loop = Loop::with_capacity(1);
    let (quiet, _peer) = pair();
    quiet.set_nonblocking(true).unwrap();
    event_loop.register(&quiet, 0);
    let others: Vec<_> = (0..100).map(|_| readable_pair()).collect();
    for (at, other) in others.iter().enumerate() {
        event_loop.register(&other.0, at + 1);
    }
    let nothing = (&quiet).read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    let (mut tokens, mut event_loop) = within_patience(|| {
        let next = |_| {
            let n = event_loop.poll.poll(&mut event_loop.events, None);
            assert_eq!(n.unwrap(), 1);
            event_loop.events[0].id()
        };
        let tokens: Vec<_> = (0..100).map(next).collect();
        (tokens, event_loop)
    });
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(1..=100));
    event_loop.expect_none();
}

/// One stream is read before its event, and another one is dropped before its event. What the system still reports
/// about these two must not hide the event of a third stream.
#[test]
fn a_ready_stream_is_not_hidden_by_others_that_have_no_event() {
    allow_open_handles(1000);
    let mut event_loop = Loop::with_capacity(1);
    let (one, mut peer) = pair();
    event_loop.register(&one, 1);
    peer.write_all(b"!").unwrap();
    assert_eq!((&one).read(&mut [0; 8]).unwrap(), 1);
    // On Windows these are more packets than one call dequeues.
    let gone: Vec<_> = (0..300).map(|_| readable_pair()).collect();
    for (stream, _) in &gone {
        event_loop.register(stream, 3);
    }
    drop(gone);
    let (other, _peer) = readable_pair();
    event_loop.register(&other, 2);
    let mut next = || {
        let n = event_loop.poll.poll(&mut event_loop.events, Some(0));
        assert_eq!(n.unwrap(), 1);
        event_loop.events[0].id()
    };
    // Some systems return an event for the byte that was read, too.
    assert!(next() == 2 || next() == 2);
}

#[test]
fn new_events_take_the_place_of_old_ones() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    assert_eq!(event_loop.wait(), [1]);
    event_loop.register(&stream, 2);
    assert_eq!(event_loop.wait(), [2]);
    assert_eq!(
        event_loop
            .poll
            .poll(&mut event_loop.events, Some(0))
            .unwrap(),
        0
    );
    assert!(event_loop.events.is_empty());
}

#[test]
fn events_read_like_a_slice() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 7);
    assert_eq!(event_loop.wait(), [7]);
    let mut events = event_loop.events;

    assert_eq!(events.len(), 1);
    assert!(!events.is_empty());
    assert_eq!(
        events.iter().map(|event| event.id()).collect::<Vec<_>>(),
        [7]
    );
    assert_eq!(events.get(0..1).map(|events| events[0].id()), Some(7));
    assert_eq!(events.first().map(|event| event.id()), Some(7));
    assert!(events.get(1).is_none());
    assert_eq!(events.get_mut(0).map(|event| event.id()), Some(7));
    assert_eq!(events[0].id(), 7);
    let mut seen = Vec::new();
    for event in &events {
        seen.push(event.id());
    }
    assert_eq!(seen, [7]);
    assert_eq!(
        format!("{:?}", events[0]),
        "Event { id: 7, interests: READABLE }"
    );
}

#[test]
fn a_poll_can_move_to_another_thread() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    std::thread::spawn(move || event_loop.expect(&[1]))
        .join()
        .unwrap();
}

#[test]
fn what_may_be_sent_and_shared_is_what_the_documents_say() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_debug<T: std::fmt::Debug>() {}
    is_send::<Poll>();
    is_send::<Events>();
    is_send::<minimio::Registrator>();
    is_sync::<minimio::Registrator>();
    is_send::<minimio::TcpStream>();
    is_sync::<minimio::TcpStream>();
    is_debug::<Poll>();
    is_debug::<Events>();
    is_debug::<minimio::Registrator>();
    is_debug::<minimio::TcpStream>();
}

#[test]
fn what_is_printed_for_people_is_one_short_line() {
    let Loop {
        poll, registrator, ..
    } = Loop::new();
    assert_eq!(format!("{poll:?}"), "Poll { .. }");
    assert_eq!(format!("{registrator:?}"), "Registrator { .. }");
    let interests = (Interests::READABLE, Interests::WRITABLE);
    assert_eq!(format!("{interests:?}"), "(READABLE, WRITABLE)");
}
