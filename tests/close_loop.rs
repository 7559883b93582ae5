//! `close_loop` may be called on any thread. It closes the loop for all registrators, permanently.

mod common;

use common::{Loop, pair, readable_pair, within_patience};
use minimio::{Events, Interests, Registrator, TcpStream};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

fn assert_closed<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("the loop is closed");
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(error.to_string(), "the event loop is closed");
}

fn assert_says_closed(registrator: &Registrator, stream: &TcpStream) {
    assert_closed(registrator.register(stream, 1, Interests::READABLE));
    assert_closed(registrator.close_loop());
}

#[test]
fn a_poll_that_is_waiting_returns() {
    for timeout in [None, Some(i32::MAX)].repeat(50) {
        let mut event_loop = Loop::new();
        let registrator = event_loop.registrator.clone();
        // Once the thread has received this event, it is in its next `poll`, or about to call it.
        let (stream, _peer) = readable_pair();
        event_loop.register(&stream, 1);
        let (sender, took_event) = std::sync::mpsc::channel();
        let poller = thread::spawn(move || {
            event_loop.expect(&[1]);
            sender.send(()).unwrap();
            event_loop.poll.poll(&mut event_loop.events, timeout)
        });
        took_event.recv().unwrap();
        registrator.close_loop().unwrap();
        assert_closed(within_patience(|| poller.join()).unwrap());
    }
}

#[test]
fn a_poll_that_comes_later_returns() {
    within_patience(|| {
        let mut event_loop = Loop::new();
        event_loop.registrator.close_loop().unwrap();
        for timeout in [None, Some(i32::MAX), Some(1), Some(0), None] {
            assert_closed(event_loop.poll.poll(&mut event_loop.events, timeout));
            assert_closed(event_loop.poll.poll(&mut Events::with_capacity(0), timeout));
        }
    });
}

#[test]
fn events_that_were_not_taken_are_gone() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    assert_eq!(event_loop.wait(), [1]);
    event_loop.register(&stream, 2);
    event_loop.registrator.close_loop().unwrap();
    assert_closed(event_loop.poll.poll(&mut event_loop.events, None));
    assert!(event_loop.events.is_empty());
}

#[test]
fn it_wakes_through_a_full_house() {
    let mut event_loop = Loop::with_capacity(1);
    let pairs: Vec<_> = (0..20).map(|_| readable_pair()).collect();
    for (stream, _) in &pairs {
        event_loop.register(stream, 0);
    }
    event_loop.registrator.close_loop().unwrap();
    for _ in 0..30 {
        assert_closed(event_loop.poll.poll(&mut event_loop.events, Some(0)));
    }
}

#[test]
fn registering_and_closing_again_are_errors() {
    let event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop.register(&stream, 1);
    event_loop.registrator.close_loop().unwrap();
    for _ in 0..2 {
        assert_says_closed(&event_loop.registrator, &stream);
        assert_says_closed(&event_loop.poll.registrator(), &stream);
        let writable = Interests::WRITABLE;
        assert_closed(event_loop.registrator.register(&stream, 1, writable));
    }
}

#[test]
fn every_clone_can_close_and_every_clone_knows() {
    for closer in 0..4 {
        let mut event_loop = Loop::new();
        let mut clones = vec![
            event_loop.registrator.clone(),
            event_loop.poll.registrator(),
        ];
        clones.push(clones[0].clone());
        clones.push(clones[2].clone());
        let closing = clones[closer].clone();
        thread::spawn(move || closing.close_loop())
            .join()
            .unwrap()
            .unwrap();
        let (stream, _peer) = pair();
        for clone in &clones {
            assert_says_closed(clone, &stream);
        }
        assert_closed(event_loop.poll.poll(&mut event_loop.events, None));
    }
}

#[test]
fn of_many_who_close_at_once_one_does() {
    for _ in 0..500 {
        let mut event_loop = Loop::new();
        let registrator = &event_loop.registrator;
        let (to_come, closed) = (AtomicUsize::new(2), AtomicUsize::new(0));
        let close = || {
            // Both calls begin so close together that they overlap.
            to_come.fetch_sub(1, SeqCst);
            while to_come.load(SeqCst) > 0 {
                thread::yield_now();
            }
            closed.fetch_add(registrator.close_loop().is_ok() as usize, SeqCst);
        };
        thread::scope(|threads| {
            threads.spawn(close);
            close();
        });
        assert_eq!(closed.into_inner(), 1);
        assert_closed(event_loop.poll.poll(&mut event_loop.events, None));
    }
}

#[test]
fn a_dropped_poll_is_a_closed_loop() {
    let event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop.register(&stream, 1);
    let Loop {
        poll, registrator, ..
    } = event_loop;
    drop(poll);
    assert_says_closed(&registrator, &stream);
    assert_says_closed(&registrator.clone(), &stream);
}

#[test]
fn loops_are_closed_one_by_one() {
    let (one, mut other) = (Loop::new(), Loop::new());
    one.registrator.close_loop().unwrap();
    let (stream, _peer) = readable_pair();
    other.register(&stream, 1);
    other.expect(&[1]);
}
