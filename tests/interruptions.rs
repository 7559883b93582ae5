//! Nothing but an event, the timeout or `close_loop` ends a wait: not signals, and not what happens to other streams.

mod common;

use common::{Loop, PATIENCE, pair, readable_pair};
use minimio::{Interests, Registrator};
use std::io::Write;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Disturbs the thread that waits, in every way we know, until it has ended; or for as long as `enough` says.
fn storm<T>(poller: &JoinHandle<T>, registrator: &Registrator, enough: impl Fn(usize) -> bool) {
    let give_up = Instant::now() + PATIENCE;
    for round in 1.. {
        let arrived = common::os::interrupt(poller);
        // A stream that has an event coming, and is gone before.
        let (stream, mut peer) = pair();
        registrator
            .register(&stream, 99, Interests::READABLE)
            .unwrap();
        drop(stream);
        let _ = peer.write_all(b"!");
        if poller.is_finished() || enough(arrived.min(round)) {
            return;
        }
        assert!(
            Instant::now() < give_up,
            "the wait should have ended long ago"
        );
    }
}

#[test]
fn a_timeout_lasts_its_time_and_no_longer() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let timeout = Duration::from_millis(300);
    let poller = thread::spawn(move || {
        let started = Instant::now();
        let result = event_loop.poll.poll(&mut event_loop.events, Some(300));
        (result, started.elapsed(), event_loop)
    });
    // If each interruption began the timeout anew, it would not end as long as these go on.
    storm(&poller, &registrator, |_| false);
    let (result, waited, _event_loop) = poller.join().unwrap();
    assert_eq!(result.unwrap(), 0);
    assert!(waited >= timeout, "it took {waited:?}");
}

#[test]
fn a_wait_without_end_goes_on_until_there_is_an_event() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let poller = thread::spawn(move || {
        let result = event_loop.poll.poll(&mut event_loop.events, None);
        (result, event_loop)
    });
    storm(&poller, &registrator, |interruptions| interruptions >= 100);
    assert!(!poller.is_finished());
    let (stream, _peer) = readable_pair();
    registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    let (result, event_loop) = common::within_patience(|| poller.join()).unwrap();
    assert_eq!(result.unwrap(), 1);
    assert_eq!(event_loop.events[0].id(), 1);
}
