//! What is allocated for a stream, and when.

mod common;

use common::counting::{Counting, allocations, live_bytes};
use common::os::{allow_open_handles, interrupt};
use common::{Loop, PATIENCE, STATES, pair, readable_pair, stream_in};
use minimio::Interests;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Where the system wants a buffer to be lent, the cost of waiting is that buffer; elsewhere it is next to nothing.
#[test]
fn a_stream_that_waits_costs_a_few_kibibytes_at_most() {
    const COUNT: usize = 1000;
    allow_open_handles(2 * COUNT + 100);
    let mut event_loop = Loop::new();
    let (before, pairs) = (live_bytes(), (0..COUNT).map(|_| pair()).collect::<Vec<_>>());
    for (stream, _) in &pairs {
        event_loop.register(stream, 1);
    }
    let each = (live_bytes() - before) as usize / COUNT;
    println!("{each} bytes for each stream that waits");
    assert!(each < 5 * 1024, "{each} bytes each");
    event_loop.expect_none();
}

#[test]
fn a_stream_that_is_gone_costs_nothing() {
    let mut event_loop = Loop::new();
    let mut after_some = || {
        for state in STATES.repeat(20) {
            drop(stream_in(state, &mut event_loop));
        }
        // What the system still has to say about them, it says now.
        event_loop.expect_none();
        live_bytes()
    };
    // The first time may make room for what is needed ever after.
    let before = after_some();
    assert_eq!(after_some(), before);
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
