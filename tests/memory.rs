//! What is allocated for a stream, and when.

mod common;

use common::counting::{Counting, allocations, live_bytes};
use common::os::{allow_open_handles, duplicate, interrupt, limit_send_buffer};
use common::{DIRECTIONS, Loop, PATIENCE, STAGES_OF_ONE, STATES, connecting_in, fill, listener_in};
use common::{make_room, pair, readable_pair, stream_in};
use minimio::{Interests, TcpListener, TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Where the system wants a buffer to be lent, the cost of waiting is that buffer; elsewhere it is next to nothing. On Windows a
/// stream that waits to write needs a little more, which is allocated when it is first registered for that.
#[test]
fn a_stream_that_waits_costs_a_few_kibibytes_at_most() {
    const COUNT: usize = 1000;
    allow_open_handles(2 * COUNT + 100);
    let mut event_loop = Loop::new();
    let before = live_bytes();
    let pairs: Vec<_> = (0..COUNT).map(|_| pair()).collect();
    let mut costs = Vec::new();
    for direction in [DIRECTIONS, DIRECTIONS].concat() {
        for (stream, _) in &pairs {
            let registrator = &event_loop.registrator;
            registrator.register(stream, 1, direction).unwrap();
        }
        costs.push((live_bytes() - before) as usize / COUNT);
    }
    let [to_read, both, ..] = costs[..] else {
        unreachable!("there are four figures")
    };
    println!("{to_read} bytes for each stream that waits, {both} if it waits to write too");
    assert!(to_read < 5 * 1024, "{costs:?}");
    let to_write = both - to_read;
    // More than the backend's table of them needs: it was not allocated before.
    assert_eq!(to_write > 100, cfg!(windows), "{costs:?}");
    assert!(to_write < 512, "{costs:?}");
    assert_eq!(costs[3], both, "to register again costs nothing");
    event_loop.expect(&[1; COUNT]);
}

/// Memory after several rounds is what it was after the first, which may make room for the others. On Windows the packet of
/// an operation that was cancelled may come a moment after the round; then a later round dequeues it.
#[track_caller]
fn assert_does_not_grow(mut bytes_after_round: impl FnMut() -> isize) {
    let (before, began) = (bytes_after_round(), Instant::now());
    let mut now = bytes_after_round();
    if cfg!(unix) {
        assert_eq!(now, before);
    }
    while now > before {
        assert!(began.elapsed() < PATIENCE, "{before} bytes, then {now}");
        now = bytes_after_round();
    }
}

#[test]
fn a_stream_that_is_gone_costs_nothing() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let after_some = || {
        for state in STATES.repeat(20) {
            drop(stream_in(state, &mut event_loop));
        }
        event_loop.expect_none(); // dequeues what cancelled operations have left
        live_bytes()
    };
    assert_does_not_grow(after_some);
}

/// What it waited for may never happen, because the connection is still open.
#[test]
fn a_stream_that_is_gone_costs_nothing_even_if_a_duplicate_lives_on() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let after_some = || {
        let _heirs = STATES.map(|state| {
            let (stream, peer) = stream_in(state, &mut event_loop);
            (duplicate(&stream), peer)
        });
        event_loop.expect_none();
        live_bytes()
    };
    assert_does_not_grow(after_some);
}

#[test]
fn a_listener_or_a_connection_that_is_gone_costs_nothing() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let after_some = || {
        for stage in STAGES_OF_ONE.repeat(5) {
            drop(listener_in(stage, &mut event_loop));
            drop(connecting_in(stage, &mut event_loop));
        }
        event_loop.expect_none();
        live_bytes()
    };
    assert_does_not_grow(after_some);
}

/// The operation that waits may never end by itself, because the duplicate keeps the socket open.
#[test]
fn a_listener_or_a_connection_that_is_gone_costs_nothing_even_if_a_duplicate_lives_on() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let after_some = || {
        let _heirs = STAGES_OF_ONE.map(|stage| {
            let (listener, client) = listener_in(stage, &mut event_loop);
            let (peer, connecting, others) = connecting_in(stage, &mut event_loop);
            let heirs = (duplicate(&listener), duplicate(&connecting));
            drop((listener, connecting));
            (heirs, client, peer, others)
        });
        event_loop.expect_none();
        live_bytes()
    };
    assert_does_not_grow(after_some);
}

/// A listener lends no buffer. A connection already has the buffer that its stream will lend.
#[test]
fn a_listener_that_waits_costs_next_to_nothing_and_a_connection_no_more_than_a_stream() {
    const COUNT: usize = 100;
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let cost_of_each = |before: isize| (live_bytes() - before) as usize / COUNT;
    let before = live_bytes();
    let listeners: Vec<_> = (0..COUNT)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    for listener in &listeners {
        event_loop.register_listener(listener, 1);
    }
    let of_listener = cost_of_each(before);
    let before = live_bytes();
    let connecting: Vec<_> = listeners
        .iter()
        .map(|listener| TcpStream::start_connect(listener.local_addr().unwrap()).unwrap())
        .collect();
    for connecting in &connecting {
        event_loop.register_connecting(connecting, 1);
    }
    let of_connection = cost_of_each(before);
    println!("{of_listener} bytes for each listener, {of_connection} for each connection");
    assert!(of_listener < 1024, "{of_listener} bytes");
    assert!(of_connection < 5 * 1024, "{of_connection} bytes");
}

/// On Windows such a read looks into the queue, on behalf of `poll`, for what is there.
#[test]
fn reads_that_find_nothing_keep_nothing() {
    let mut event_loop = Loop::new();
    let ((mut quiet, _peer), (other, _other_peer)) = (pair(), readable_pair());
    quiet.set_nonblocking(true).unwrap();
    event_loop.register(&quiet, 1);
    event_loop.register(&other, 2);
    let mut after_many = || {
        for _ in 0..1000 {
            let nothing = quiet.read(&mut [0; 8]).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        }
        live_bytes()
    };
    let before = after_many();
    assert_eq!(after_many(), before);
    event_loop.expect(&[2]);
}

#[test]
fn a_round_of_waiting_reading_and_registering_allocates_nothing() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let mut pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    let mut round = |event_loop: &mut Loop| {
        for (_, peer) in &mut pairs {
            peer.write_all(b"!").unwrap();
        }
        for (token, (stream, _)) in pairs.iter().enumerate() {
            event_loop.register(stream, token);
        }
        let mut left = pairs.len();
        while left > 0 {
            left -= event_loop
                .poll
                .poll(&mut event_loop.events, Some(60_000))
                .unwrap();
            for event in &event_loop.events {
                pairs[event.id()].0.read_exact(&mut [0]).unwrap();
            }
        }
    };
    // The first time may make room for what is needed ever after.
    round(&mut event_loop);
    let before = allocations();
    assert!(before > 0, "this counts nothing");
    (0..100).for_each(|_| round(&mut event_loop));
    assert_eq!(allocations() - before, 0);
}

/// The same for writing: the streams are filled, and wait until their peers have read.
#[test]
fn a_round_of_writing_waiting_and_registering_allocates_nothing() {
    let mut event_loop = Loop::new();
    make_room(&mut event_loop);
    let mut pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    for (stream, _) in &pairs {
        limit_send_buffer(stream);
    }
    let mut buffer = vec![0; 64 << 10];
    let mut round = |event_loop: &mut Loop| {
        for (token, (stream, peer)) in pairs.iter_mut().enumerate() {
            let mut unread = fill(stream);
            event_loop.register_to_write(stream, token);
            event_loop.register(stream, token);
            while unread > 0 {
                unread -= peer.read(&mut buffer).unwrap();
            }
            peer.write_all(b"!").unwrap();
        }
        let mut left = 2 * pairs.len();
        while left > 0 {
            left -= event_loop
                .poll
                .poll(&mut event_loop.events, Some(60_000))
                .unwrap();
            for event in event_loop.events.iter().filter(|it| it.is_readable()) {
                pairs[event.id()].0.read_exact(&mut [0]).unwrap();
            }
        }
    };
    // The first time may make room for what is needed ever after.
    round(&mut event_loop);
    let before = allocations();
    (0..100).for_each(|_| round(&mut event_loop));
    assert_eq!(allocations() - before, 0);
}

/// A signal, where there are any, ends the wait of the system and not that of `poll`.
#[test]
fn an_interrupted_wait_allocates_nothing() {
    const INTERRUPTIONS: usize = 100;
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (sender, begins) = mpsc::channel();
    let poller = thread::spawn(move || {
        event_loop.expect_none(); // which makes room for what is needed ever after
        sender.send(()).unwrap();
        let before = allocations();
        let n = event_loop.poll.poll(&mut event_loop.events, None).unwrap();
        (n, allocations() - before)
    });
    begins.recv().unwrap();
    let give_up = Instant::now() + PATIENCE;
    while interrupt(&poller) < INTERRUPTIONS {
        assert!(Instant::now() < give_up, "no signal arrives");
        thread::yield_now();
    }
    let (stream, _peer) = readable_pair();
    registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    assert_eq!(poller.join().unwrap(), (1, 0));
}
