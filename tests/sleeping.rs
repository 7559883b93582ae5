//! A waiting thread sleeps. A wait that checks the clock in a loop would pass all other tests.
//!
//! This file has only one test, because it measures the processor time of the whole process.

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

/// One success in several tries is enough, because on a busy machine even `be_busy` may get little processor time.
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

/// Measures reads that block on registered streams while no thread polls. On Windows each of them waits for a packet.
fn cost_of_many_reads() -> u64 {
    let event_loop = Loop::new();
    let pairs: Vec<_> = (0..200).map(|_| pair()).collect();
    thread::scope(|threads| {
        for (stream, _) in &pairs {
            event_loop.register(stream, 1);
            threads.spawn(move || assert_eq!((&*stream).read(&mut [0; 8]).unwrap(), 1));
        }
        wait_for_the_timeout(); // gives all threads time to block
        let cost = cost(wait_for_the_timeout);
        for (_, peer) in &pairs {
            (&*peer).write_all(b"!").unwrap();
        }
        cost
    })
}
