//! Only an event, the timeout or `close_loop` ends a wait. Signals and dropped streams do not.

mod common;

use common::{Loop, PATIENCE, pair, readable_pair};
use minimio::{Events, Interests, Poll, Registrator};
use std::io::Write;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Disturbs the waiting thread in every way we know. Returns how many signals have arrived so far, or `usize::MAX` on a
/// system without signals.
fn disturb<T>(poller: &JoinHandle<T>, registrator: &Registrator) -> usize {
    // This stream is dropped before it has its event.
    let (stream, mut peer) = pair();
    registrator
        .register(&stream, 99, Interests::READABLE)
        .unwrap();
    drop(stream);
    let _ = peer.write_all(b"!");
    common::os::interrupt(poller)
}

/// Disturbs the thread `times` times, or until it has ended.
fn storm<T>(poller: &JoinHandle<T>, registrator: &Registrator, times: usize) {
    let give_up = Instant::now() + PATIENCE;
    for round in 1.. {
        let arrived = disturb(poller, registrator);
        if poller.is_finished() || arrived.min(round) >= times {
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
    // An interrupted wait must not return these events of an earlier call again.
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    assert_eq!(event_loop.wait(), [1]);
    let registrator = event_loop.registrator.clone();
    let timeout = Duration::from_millis(300);
    let poller = thread::spawn(move || {
        let started = Instant::now();
        let result = event_loop.poll.poll(&mut event_loop.events, Some(300));
        (result, started.elapsed(), event_loop)
    });
    // If each interruption restarted the timeout, the wait would not end before the storm.
    storm(&poller, &registrator, usize::MAX - 1);
    let (result, waited, _event_loop) = poller.join().unwrap();
    assert_eq!(result.unwrap(), 0);
    assert!(waited >= timeout, "it took {waited:?}");
}

/// A single late disturbance does not restart the timeout. One good wait of several is enough, because a busy machine
/// can make a wait longer, but never shorter.
#[test]
fn a_disturbed_timeout_is_not_lengthened() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let (mut excess, give_up) = (Vec::new(), Instant::now() + PATIENCE);
    while excess.len() < 8 {
        assert!(Instant::now() < give_up, "every disturbance came too late");
        let mut event_loop = Loop::new();
        let registrator = event_loop.registrator.clone();
        let started = Instant::now();
        let poller = thread::spawn(move || {
            let n = event_loop
                .poll
                .poll(&mut event_loop.events, Some(TIMEOUT.as_millis() as i32))
                .unwrap();
            assert_eq!(n, 0);
            (started.elapsed(), event_loop)
        });
        // The timeout of another loop serves as the clock.
        Poll::new()
            .unwrap()
            .poll(&mut Events::with_capacity(1), Some(150))
            .unwrap();
        let disturbed = started.elapsed();
        disturb(&poller, &registrator);
        let is_too_late = started.elapsed() >= TIMEOUT;
        let (waited, _event_loop) = poller.join().unwrap();
        if is_too_late {
            continue;
        }
        if waited < disturbed + TIMEOUT {
            return;
        }
        excess.push(waited - TIMEOUT);
    }
    panic!("a timeout of {TIMEOUT:?} was exceeded by {excess:?}");
}

#[test]
fn a_wait_without_end_goes_on_until_there_is_an_event() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let poller = thread::spawn(move || {
        let result = event_loop.poll.poll(&mut event_loop.events, None);
        (result, event_loop)
    });
    storm(&poller, &registrator, 100);
    assert!(!poller.is_finished());
    let (stream, _peer) = readable_pair();
    registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    let (result, event_loop) = common::within_patience(|| poller.join()).unwrap();
    assert_eq!(result.unwrap(), 1);
    assert_eq!(event_loop.events[0].id(), 1);
}
