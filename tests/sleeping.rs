//! Whoever waits, sleeps: a wait that looks at the clock again and again keeps every promise but this one.
//!
//! One test, for it measures what the whole process does.

mod common;

use common::os::processor_time;
use common::{Loop, readable_pair};
use minimio::{Events, Interests, Poll};
use std::hint::spin_loop;
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

/// Of several, for while a busy machine lets nobody work, even work is cheap.
#[test]
fn a_wait_costs_no_work() {
    let costs_little =
        |wait: fn()| (0..8).any(|_| cost(wait) <= cost(|| be_busy(Duration::from_millis(10))));
    assert!(costs_little(wait_for_the_timeout));
    assert!(costs_little(wait_for_an_event));
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
