//! Any number of threads may register while another one polls.

mod common;

use common::{
    DIRECTIONS, Loop, MAX_BYTES, PATIENCE, byte_at, bytes_at, full_pair, pair, read_pattern,
    readable_pair, wait_for_data, within_patience,
};
use minimio::{Interests, TcpStream, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;
use std::{hint, net};

/// Eight threads register a thousand streams repeatedly in both directions while one polls. Each registration gives one
/// event.
#[test]
fn eight_threads_register_a_thousand_streams() {
    const THREADS: usize = 8;
    const STREAMS: usize = 1000;
    const TOKENS: usize = 2 * STREAMS;
    const ROUNDS: usize = 5;
    common::os::allow_open_handles(2 * STREAMS + 100);
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let pairs: Vec<_> = (0..STREAMS).map(|_| readable_pair()).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();

    let poller = thread::spawn(move || {
        let mut left = TOKENS * ROUNDS;
        while left > 0 {
            left -= event_loop.wait().len();
            for event in &event_loop.events {
                let token = event.id();
                assert_eq!(event.is_writable(), DIRECTIONS[token % 2].is_writable());
                senders[token / 2 % THREADS].send(token).unwrap();
            }
        }
        event_loop.expect_none();
    });

    thread::scope(|threads| {
        for (number, tokens) in receivers.into_iter().enumerate() {
            let (registrator, pairs) = (&registrator, &pairs);
            threads.spawn(move || {
                let register = |token: Token| {
                    registrator.register(&pairs[token / 2].0, token, DIRECTIONS[token % 2])
                };
                let mut counts = HashMap::new();
                for token in (0..TOKENS).filter(|token| token / 2 % THREADS == number) {
                    register(token).unwrap();
                    counts.insert(token, 0);
                }
                for _ in 0..counts.len() * ROUNDS {
                    let token = tokens.recv_timeout(PATIENCE).expect("an event");
                    let count = counts.get_mut(&token).expect("a token of ours");
                    *count += 1;
                    assert!(
                        *count <= ROUNDS,
                        "more events of {token} than registrations"
                    );
                    if *count < ROUNDS {
                        register(token).unwrap();
                    }
                }
                assert!(counts.values().all(|count| *count == ROUNDS));
            });
        }
    });
    within_patience(|| poller.join()).unwrap();
}

/// The first registration of a stream is special. Here three threads make it at once, and register again right after
/// it.
#[test]
fn many_threads_register_one_stream() {
    const THREADS: usize = 3;
    for direction in DIRECTIONS.repeat(150) {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = pair();
        let are_there = AtomicUsize::new(0);
        thread::scope(|threads| {
            for token in 0..THREADS {
                let (registrator, stream, are_there) =
                    (&event_loop.registrator, &stream, &are_there);
                threads.spawn(move || {
                    meet(are_there, THREADS);
                    for _ in 0..3 {
                        registrator.register(stream, token, direction).unwrap();
                    }
                });
            }
        });
        peer.write_all(b"!").unwrap();
        let tokens = event_loop.wait();
        assert!(
            tokens.len() == 1 && tokens[0] < THREADS,
            "expected one event, got {tokens:?}"
        );
        event_loop.expect_none();
    }
}

/// Waits until all threads have called it. They return closer together than from a `Barrier`, which wakes one after the
/// other.
fn meet(are_there: &AtomicUsize, threads: usize) {
    are_there.fetch_add(1, SeqCst);
    while are_there.load(SeqCst) < threads {
        hint::spin_loop();
    }
}

/// Neither direction was registered before, and each gives its event.
#[test]
fn both_directions_are_registered_for_the_first_time_at_the_same_moment() {
    for _ in 0..500 {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = pair();
        let are_there = AtomicUsize::new(0);
        thread::scope(|threads| {
            for direction in DIRECTIONS {
                let (registrator, stream, are_there) =
                    (&event_loop.registrator, &stream, &are_there);
                threads.spawn(move || {
                    meet(are_there, DIRECTIONS.len());
                    let token = usize::from(direction.is_writable());
                    registrator.register(stream, token, direction).unwrap();
                });
            }
        });
        peer.write_all(b"!").unwrap();
        event_loop.expect(&[0, 1]);
    }
}

/// If several loops register the same stream at once, it belongs to one of them, for both directions.
#[test]
fn many_loops_want_one_stream() {
    const LOOPS: usize = 4;
    for _ in 0..100 {
        let mut loops: Vec<_> = (0..LOOPS).map(|_| Loop::new()).collect();
        let (stream, _peer) = readable_pair();
        let start = Barrier::new(LOOPS);
        let winners: Vec<bool> = thread::scope(|threads| {
            let registering: Vec<_> = loops
                .iter()
                .zip(DIRECTIONS.repeat(LOOPS / 2))
                .map(|(event_loop, direction)| {
                    let (stream, start) = (&stream, &start);
                    threads.spawn(move || {
                        start.wait();
                        match event_loop.registrator.register(stream, 1, direction) {
                            Ok(()) => true,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                                false
                            }
                        }
                    })
                })
                .collect();
            registering
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(winners.iter().filter(|won| **won).count(), 1);
        for (event_loop, won) in loops.iter_mut().zip(winners) {
            event_loop.expect(if won { &[1] } else { &[] });
        }
    }
}

/// One thread polls and passes the tokens to another one, which reads and registers again. No byte is lost or repeated.
#[test]
fn readers_in_other_threads_lose_nothing() {
    const STREAMS: usize = 16;
    const LEN: usize = 64 << 10;
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (near, far): (Vec<TcpStream>, Vec<net::TcpStream>) = (0..STREAMS).map(|_| pair()).unzip();
    let near = Arc::new(near);
    let (sender, tokens) = mpsc::channel();
    for (token, stream) in near.iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        event_loop.register(stream, token);
    }
    let poller = thread::spawn(move || {
        loop {
            match event_loop.poll.poll(&mut event_loop.events, None) {
                Ok(_) => event_loop
                    .events
                    .iter()
                    .for_each(|event| sender.send(event.id()).unwrap()),
                Err(error) => return error.kind(),
            }
        }
    });
    let writers: Vec<_> = far
        .into_iter()
        .map(|mut peer| {
            thread::spawn(move || peer.write_all(&(0..LEN).map(byte_at).collect::<Vec<_>>()))
        })
        .collect();

    let mut received = vec![0; STREAMS];
    let mut open = STREAMS;
    while open > 0 {
        let token = tokens.recv_timeout(PATIENCE).expect("an event");
        let mut buffer = [0; 777];
        match (&near[token]).read(&mut buffer) {
            Ok(0) => {
                open -= 1;
                continue;
            }
            Ok(n) => {
                for byte in &buffer[..n] {
                    assert_eq!(*byte, byte_at(received[token]));
                    received[token] += 1;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        registrator
            .register(&near[token], token, Interests::READABLE)
            .unwrap();
    }
    assert_eq!(received, [LEN; STREAMS]);
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap().unwrap());
    registrator.close_loop().unwrap();
    assert_eq!(
        within_patience(|| poller.join()).unwrap(),
        ErrorKind::Interrupted
    );
}

/// The same for writers: one thread polls and passes the tokens to another one, which writes and registers again.
#[test]
fn writers_in_other_threads_lose_nothing() {
    const STREAMS: usize = 16;
    const LEN: usize = 512 << 10;
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (near, far): (Vec<TcpStream>, Vec<net::TcpStream>) = (0..STREAMS).map(|_| pair()).unzip();
    let (sender, tokens) = mpsc::channel();
    for (token, stream) in near.iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        common::os::limit_send_buffer(stream);
        event_loop.register_to_write(stream, token);
    }
    let poller = thread::spawn(move || {
        while event_loop.poll.poll(&mut event_loop.events, None).is_ok() {
            let tokens = event_loop.events.iter().map(|event| event.id());
            tokens.for_each(|token| sender.send(token).unwrap());
        }
    });
    let reader = |peer| thread::spawn(move || read_pattern(&peer, LEN));
    let readers: Vec<_> = far.into_iter().map(reader).collect();

    let mut sent = [0; STREAMS];
    while sent.iter().any(|sent| *sent < LEN) {
        let token = tokens.recv_timeout(PATIENCE).expect("an event");
        let (mut stream, sent) = (&near[token], &mut sent[token]);
        *sent += stream
            .write(bytes_at(*sent, MAX_BYTES.min(LEN - *sent)))
            .expect("room, because no other thread writes");
        if *sent < LEN {
            let writable = Interests::WRITABLE;
            registrator.register(stream, token, writable).unwrap();
        }
    }
    for reader in readers {
        within_patience(|| reader.join()).unwrap();
    }
    registrator.close_loop().unwrap();
    within_patience(|| poller.join()).unwrap();
}

/// One thread blocks in `write` until the peer reads, and another one registers in both directions.
#[test]
fn a_registration_beside_a_write_gives_an_event() {
    const LEN: usize = 16 << 20;
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    let written = AtomicUsize::new(0);
    thread::scope(|threads| {
        threads.spawn(|| {
            while written.load(SeqCst) < LEN {
                let place = written.load(SeqCst);
                let n = (&stream).write(bytes_at(place, MAX_BYTES)).unwrap();
                written.fetch_add(n, SeqCst);
            }
        });
        while written.load(SeqCst) == 0 {
            thread::yield_now();
        }
        event_loop.register(&stream, 1);
        event_loop.register_to_write(&stream, 2);
        read_pattern(&peer, LEN);
    });
    peer.write_all(b"!").unwrap();
    event_loop.expect(&[1, 2]);
}

/// When a thread exits, Windows cancels the operations that it has started, unless the socket is associated with a
/// port.
#[test]
fn a_registration_for_writing_outlives_its_thread() {
    for _ in 0..20 {
        let register = || {
            let mut event_loop = Loop::new();
            let full = full_pair(&mut event_loop, 1);
            (event_loop, full)
        };
        let (mut event_loop, (stream, peer, written)) = thread::spawn(register).join().unwrap();
        event_loop.expect_none();
        read_pattern(&peer, written);
        event_loop.expect(&[1]);
        assert_eq!((&stream).write(b"!").unwrap(), 1);
    }
}

/// The same for reading.
#[test]
fn a_registration_outlives_its_thread() {
    for _ in 0..20 {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = pair();
        let registrator = event_loop.registrator.clone();
        let stream = thread::spawn(move || {
            registrator
                .register(&stream, 1, Interests::READABLE)
                .map(|()| stream)
        })
        .join()
        .unwrap()
        .unwrap();
        event_loop.expect_none();
        peer.write_all(b"!").unwrap();
        event_loop.expect(&[1]);
        assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 1);
    }
}

/// One thread reads while another one registers the same stream and a third one polls. However their calls overlap, the
/// bytes keep their order.
#[test]
fn whoever_registers_while_another_reads_does_not_mix_the_bytes() {
    const LEN: usize = 64 << 10;
    for nonblocking in [false, true].repeat(4) {
        let mut event_loop = Loop::new();
        let registrator = event_loop.registrator.clone();
        let (stream, mut peer) = pair();
        stream.set_nonblocking(nonblocking).unwrap();
        let stream = Arc::new(stream);
        let is_done = AtomicBool::new(false);
        thread::scope(|threads| {
            threads.spawn(|| {
                for chunk in (0..LEN).step_by(64) {
                    let bytes: Vec<u8> = (chunk..chunk + 64).map(byte_at).collect();
                    peer.write_all(&bytes).unwrap();
                }
            });
            threads.spawn(|| {
                while !is_done.load(SeqCst) {
                    registrator
                        .register(&stream, 1, Interests::READABLE)
                        .unwrap();
                }
            });
            threads.spawn(|| {
                while !is_done.load(SeqCst) {
                    event_loop
                        .poll
                        .poll(&mut event_loop.events, Some(1))
                        .unwrap();
                }
            });
            let (mut received, mut buffer) = (0, [0; 100]);
            let give_up = Instant::now() + PATIENCE;
            while received < LEN && Instant::now() < give_up {
                match (&*stream).read(&mut buffer) {
                    Ok(n) => {
                        for byte in &buffer[..n] {
                            if *byte != byte_at(received) {
                                is_done.store(true, SeqCst);
                                panic!("byte {received} is wrong");
                            }
                            received += 1;
                        }
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            is_done.store(true, SeqCst);
            assert_eq!(received, LEN);
        });
    }
}

/// One thread is in `read` or about to call it, and another one registers. The reader gets the first byte. The
/// registration has an event nevertheless, for the first byte or for the second.
#[test]
fn a_registration_beside_a_read_gives_an_event() {
    for _ in 0..20 {
        let mut event_loop = Loop::new();
        let (stream, mut peer) = pair();
        let stream = Arc::new(stream);
        let (sender, begins) = mpsc::channel();
        let reader = thread::spawn({
            let stream = stream.clone();
            move || {
                sender.send(()).unwrap();
                (&*stream).read(&mut [0]).unwrap()
            }
        });
        begins.recv().unwrap();
        event_loop.register(&stream, 1);
        peer.write_all(b"!").unwrap();
        assert_eq!(within_patience(|| reader.join()).unwrap(), 1);
        peer.write_all(b"!").unwrap();
        event_loop.expect(&[1]);
    }
}

/// One thread reads one of two bytes, and another one registers the stream for the first time just when the read
/// returns. The registration has an event nevertheless, for the other byte.
#[test]
fn a_first_registration_beside_the_end_of_a_read_gives_an_event() {
    let mut event_loop = Loop::new();
    for token in 0..200 {
        let (stream, mut peer) = pair();
        peer.write_all(b"!!").unwrap();
        wait_for_data(&stream);
        let together = Barrier::new(2);
        thread::scope(|threads| {
            threads.spawn(|| {
                together.wait();
                assert_eq!((&stream).read(&mut [0]).unwrap(), 1);
            });
            together.wait();
            event_loop.register(&stream, token);
        });
        event_loop.expect(&[token]);
    }
}

/// One thread waits in `poll` for one stream, and another thread in `read` for another stream. On Windows both wait for
/// packets of the same port.
#[test]
fn a_poll_and_a_read_wait_for_each_other() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let ((polled, mut polled_peer), (read, mut read_peer)) = (pair(), pair());
    let (sender, answers) = mpsc::channel();
    let register = |stream: &TcpStream, token, direction| {
        registrator.register(stream, token, direction).unwrap();
    };
    thread::scope(|threads| {
        let (to_poll, to_read) = (sender.clone(), sender);
        threads.spawn(move || {
            while event_loop.poll.poll(&mut event_loop.events, None).is_ok() {
                let mut tokens = event_loop.events.iter().map(|event| event.id());
                // The read's own registration may have an event too.
                if tokens.any(|token| token == 1) {
                    to_poll.send("poll").unwrap();
                }
            }
        });
        threads.spawn(|| {
            let to_read = to_read;
            while (&read).read(&mut [0]).unwrap() > 0 {
                to_read.send("read").unwrap();
            }
        });
        let mut is_answered = |round: usize| {
            register(&read, 2, Interests::READABLE);
            if round % 3 == 2 {
                register(&polled, 1, Interests::WRITABLE);
                return answers.recv_timeout(PATIENCE) == Ok("poll");
            }
            register(&polled, 1, Interests::READABLE);
            let (peer, answer) = match round % 3 {
                0 => (&mut polled_peer, "poll"),
                _ => (&mut read_peer, "read"),
            };
            peer.write_all(b"!").unwrap();
            let is_answered = answers.recv_timeout(PATIENCE) == Ok(answer);
            is_answered && (answer == "read" || (&polled).read(&mut [0]).unwrap() == 1)
        };
        let unanswered = (0..50).find(|round| !is_answered(*round));
        // Let both threads end before the test fails.
        registrator.close_loop().unwrap();
        read_peer.shutdown(net::Shutdown::Write).unwrap();
        assert_eq!(unanswered, None);
    });
}

/// Two threads read by turns, so that one of them is always in `read`. On Windows the registration has to wait for such
/// a read, but must not wait forever.
#[test]
fn a_registration_beside_two_readers_gives_an_event() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (stream, mut peer) = pair();
    let (read, is_done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !is_done.load(SeqCst) {
                    read.fetch_add((&stream).read(&mut [0]).unwrap(), SeqCst);
                }
            });
        }
        let poller = threads.spawn(move || event_loop.wait());
        for written in 1.. {
            peer.write_all(b"!").unwrap();
            while read.load(SeqCst) < written && !poller.is_finished() {
                thread::yield_now();
            }
            match written {
                10 => registrator
                    .register(&stream, 1, Interests::READABLE)
                    .unwrap(),
                _ if poller.is_finished() => break,
                _ => (),
            }
        }
        is_done.store(true, SeqCst);
        peer.shutdown(net::Shutdown::Write).unwrap();
        assert_eq!(poller.join().unwrap(), [1]);
    });
}

/// Two threads register a stream so close together that their calls overlap.
#[test]
fn two_threads_register_one_stream_at_the_same_moment() {
    let mut event_loop = Loop::new();
    for direction in DIRECTIONS.repeat(1000) {
        let (stream, mut peer) = pair();
        let to_come = AtomicUsize::new(2);
        let register = |token| {
            to_come.fetch_sub(1, SeqCst);
            while to_come.load(SeqCst) > 0 {
                thread::yield_now();
            }
            let registrator = &event_loop.registrator;
            registrator.register(&stream, token, direction).unwrap();
        };
        thread::scope(|threads| {
            threads.spawn(|| register(1));
            register(2);
        });
        peer.write_all(b"!").unwrap();
        assert_eq!(event_loop.wait().len(), 1);
    }
    event_loop.expect_none();
}

/// On Windows, a read that finds no data dequeues from the same port as `poll`. A thread that sleeps in `poll` must
/// still see every event, and must see that the loop is closed.
#[test]
fn reads_that_find_nothing_keep_nothing_from_a_poll_that_sleeps() {
    (0..50).for_each(|_| reads_beside_a_poll());
}

fn reads_beside_a_poll() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (quiet, mut peer) = pair();
    quiet.set_nonblocking(true).unwrap();
    event_loop.register(&quiet, 0);
    let (sender, tokens) = mpsc::channel();
    let is_done = AtomicBool::new(false);
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            while !is_done.load(SeqCst) {
                let nothing = (&quiet).read(&mut [0; 8]).unwrap_err();
                assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            }
        });
        threads.spawn(|| {
            while event_loop.poll.poll(&mut event_loop.events, None).is_ok() {
                for event in &event_loop.events {
                    sender.send(event.id()).unwrap();
                }
            }
            drop(sender);
        });
        let others: Vec<_> = (0..4).map(|_| pair()).collect();
        let came = others.iter().enumerate().all(|(at, (near, far))| {
            let direction = DIRECTIONS[at % 2];
            registrator.register(near, at + 1, direction).unwrap();
            (&*far).write_all(b"!").unwrap();
            tokens.recv_timeout(PATIENCE) == Ok(at + 1)
        });
        registrator.close_loop().unwrap();
        let ended = tokens.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Disconnected);
        is_done.store(true, SeqCst);
        reader.join().unwrap();
        peer.write_all(b"!").unwrap(); // wakes a `poll` that has missed the closing, so that its thread ends
        assert!(came, "`poll` has missed an event");
        assert!(ended, "`poll` has missed that the loop is closed");
    });
}
