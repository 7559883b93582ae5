//! A thread that waits sleeps: a wait that looks at the clock again and again keeps every promise but this one.
//!
//! One test, because it measures what the whole process does.

mod common;

use common::os::processor_time;
use common::{Loop, pair, readable_pair};
use minimio::{Events, Interests, Poll};
use std::hint::spin_loop;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

fn cost(job: impl FnOnce()) -> u64 {
    let before = processor_time();
    job();
    processor_time().wrapping_sub(before)
}

fn be_busy(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        spin_loop();
    }
}

/// One of several tries is enough, because work too is cheap while a busy machine lets this process do none.
#[test]
fn a_wait_costs_no_work() {
    let costs_little = |cost_of_wait: fn() -> u64| {
        (0..8).any(|_| cost_of_wait() <= cost(|| be_busy(Duration::from_millis(10))))
    };
    assert!(costs_little(|| cost(wait_for_the_timeout)));
    assert!(costs_little(|| cost(wait_for_an_event)));
    assert!(costs_little(cost_of_many_reads));
}

fn wait_for_the_timeout() {
    let n = Poll::new()
        .unwrap()
        .poll(&mut Events::with_capacity(1), Some(900))
        .unwrap();
    assert_eq!(n, 0);
}

fn wait_for_an_event() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (stream, _peer) = readable_pair();
    thread::scope(|threads| {
        threads.spawn(|| {
            wait_for_the_timeout();
            registrator
                .register(&stream, 1, Interests::READABLE)
                .unwrap();
        });
        let n = event_loop.poll.poll(&mut event_loop.events, None).unwrap();
        assert_eq!(n, 1);
    });
}

/// Reads that block on registered streams, while no thread polls: on Windows each of them waits for a packet.
fn cost_of_many_reads() -> u64 {
    let event_loop = Loop::new();
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    thread::scope(|threads| {
        for (stream, _) in &pairs {
            event_loop.register(stream, 1);
            threads.spawn(move || assert_eq!((&*stream).read(&mut [0; 8]).unwrap(), 1));
        }
        wait_for_the_timeout(); // until they all wait
        let cost = cost(wait_for_the_timeout);
        for (_, peer) in &pairs {
            (&*peer).write_all(b"!").unwrap();
        }
        cost
    })
}
