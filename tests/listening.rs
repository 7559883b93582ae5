//! A listener is readable when a client can be accepted.

mod common;

use common::os::{duplicate, reset_when_closed};
use common::{Loop, listener, pair, within_patience};
use minimio::{Interests, TcpListener, TcpStream};
use std::io::{ErrorKind, Read, Write};
use std::net;
use std::thread;

/// A listener that has a client in its queue, so that `accept` does not block.
fn listener_with_client() -> (TcpListener, net::TcpStream) {
    let (listener, addr) = listener();
    let client = net::TcpStream::connect(addr).unwrap();
    (listener, client)
}

#[test]
fn a_client_that_was_there_before_gives_an_event() {
    let mut event_loop = Loop::new();
    let (listener, client) = listener_with_client();
    event_loop.register_listener(&listener, 1);
    event_loop.expect(&[1]);
    let (_accepted, addr) = listener.accept().unwrap();
    assert_eq!(addr, client.local_addr().unwrap());
}

#[test]
fn a_client_that_comes_later_gives_an_event() {
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    event_loop.register_listener(&listener, 1);
    event_loop.expect_none();
    let _client = net::TcpStream::connect(addr).unwrap();
    event_loop.expect(&[1]);
    assert!(event_loop.events.iter().all(|event| event.is_readable()));
    listener.accept().unwrap();
}

#[test]
fn one_registration_gives_one_event() {
    let mut event_loop = Loop::new();
    let (listener, _client) = listener_with_client();
    event_loop.register_listener(&listener, 1);
    event_loop.expect(&[1]);
    // Neither the client that was not accepted, nor another one, gives a second event.
    let _another = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    event_loop.expect_none();
    for token in [2, 3] {
        event_loop.register_listener(&listener, token);
        event_loop.expect(&[token]);
        listener.accept().unwrap();
    }
    event_loop.register_listener(&listener, 4);
    event_loop.expect_none();
}

#[test]
fn registering_again_before_the_event_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    for token in [1, 2, 3] {
        event_loop.register_listener(&listener, token);
    }
    let _client = net::TcpStream::connect(addr).unwrap();
    event_loop.expect(&[3]);
}

#[test]
fn a_nonblocking_listener_says_would_block() {
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    listener.set_nonblocking(true).unwrap();
    for token in 1..4 {
        let no_client = listener.accept().map(drop).unwrap_err();
        assert_eq!(no_client.kind(), ErrorKind::WouldBlock);
        event_loop.register_listener(&listener, token);
        let _client = net::TcpStream::connect(addr).unwrap();
        event_loop.expect(&[token]);
        listener.accept().unwrap();
    }
}

#[test]
fn a_blocking_listener_waits_for_a_client_whether_registered_or_not() {
    for is_registered in [false, true] {
        let mut event_loop = Loop::new();
        let (listener, addr) = listener();
        if is_registered {
            event_loop.register_listener(&listener, 1);
        }
        thread::scope(|threads| {
            let accepted = threads.spawn(|| listener.accept());
            let client = net::TcpStream::connect(addr).unwrap();
            let (_, peer) = accepted.join().unwrap().unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
        });
        if is_registered {
            // The registration has exactly one event, either because of that client or because of this one.
            let _client = net::TcpStream::connect(addr).unwrap();
            event_loop.expect(&[1]);
        }
    }
}

/// On some systems, an accepted socket inherits the mode of the listener.
#[test]
fn what_was_accepted_blocks_whatever_the_listener_does() {
    const ROUNDS: u32 = 100;
    for is_nonblocking in [false, true] {
        let mut event_loop = Loop::new();
        let (listener, mut client) = listener_with_client();
        listener.set_nonblocking(is_nonblocking).unwrap();
        event_loop.register_listener(&listener, 1);
        event_loop.expect(&[1]);
        let (mut accepted, _) = listener.accept().unwrap();
        // Each read but the first begins right after an answer, so it begins before the client has sent the next byte.
        let server = thread::spawn(move || {
            for _ in 0..ROUNDS {
                accepted.read_exact(&mut [0]).unwrap();
                accepted.write_all(b"!").unwrap();
            }
        });
        within_patience(move || {
            for _ in 0..ROUNDS {
                client.write_all(b"?").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            server.join()
        })
        .unwrap();
    }
}

/// On some systems `accept` still returns this client, whose stream has ended. On others the queue is empty again.
#[test]
fn a_client_that_left_before_hurts_nobody() {
    for is_reset in [false, true] {
        let mut event_loop = Loop::new();
        let (listener, client) = listener_with_client();
        listener.set_nonblocking(true).unwrap();
        if is_reset {
            reset_when_closed(&client);
        }
        drop(client);
        let mut honest = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        honest.write_all(b"!").unwrap();
        let addr = honest.local_addr().unwrap();
        let mut accepted = loop {
            event_loop.register_listener(&listener, 1);
            assert_eq!(event_loop.wait(), [1]);
            match listener.accept() {
                Ok((stream, peer)) if peer == addr => break stream,
                Ok((mut left, _)) => {
                    let end = left.read(&mut [0; 8]).map_err(|error| error.kind());
                    assert!([Ok(0), Err(ErrorKind::ConnectionReset)].contains(&end));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        };
        assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
    }
}

#[test]
fn it_is_never_writable() {
    let mut event_loop = Loop::new();
    let (listener, _client) = listener_with_client();
    for _ in 0..2 {
        let refused = event_loop
            .registrator
            .register(&listener, 1, Interests::WRITABLE);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        event_loop.expect_none();
        event_loop.register_listener(&listener, 2);
        event_loop.expect(&[2]);
    }
    event_loop.registrator.close_loop().unwrap();
    let closed = event_loop
        .registrator
        .register(&listener, 1, Interests::WRITABLE);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn it_belongs_to_one_poll() {
    let (mut first, mut second) = (Loop::new(), Loop::new());
    let (listener, _client) = listener_with_client();
    first.register_listener(&listener, 1);
    let refused = second
        .registrator
        .register(&listener, 2, Interests::READABLE);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    first.expect(&[1]);
    second.expect_none();
    // An accepted stream does not belong to any poll yet.
    let (stream, _) = listener.accept().unwrap();
    second.register_to_write(&stream, 3);
    second.expect(&[3]);
}

/// This also holds while a duplicate of the listener is open.
#[test]
fn a_dropped_listener_has_no_event() {
    for has_client in [false, true] {
        for has_duplicate in [false, true] {
            let mut event_loop = Loop::new();
            let (listener, addr) = listener();
            let client = has_client.then(|| net::TcpStream::connect(addr).unwrap());
            event_loop.register_listener(&listener, 1);
            let duplicate = has_duplicate.then(|| duplicate(&listener));
            drop(listener);
            let another = net::TcpStream::connect(addr);
            assert!(another.is_err() || has_duplicate);
            event_loop.expect_none();
            drop((client, another, duplicate));
            event_loop.expect_none();
        }
    }
}

#[test]
fn a_listener_without_its_poll_still_accepts() {
    let event_loop = Loop::new();
    let (listener, addr) = listener();
    event_loop.register_listener(&listener, 1);
    drop(event_loop);
    let _client = net::TcpStream::connect(addr).unwrap();
    listener.accept().unwrap();
}

/// A minimal server handles clients, requests and answers in one loop.
#[test]
fn a_loop_accepts_reads_and_writes() {
    const CLIENTS: usize = 50;
    const LISTENER: usize = usize::MAX;
    let mut event_loop = Loop::with_capacity(8);
    let (listener, addr) = listener();
    listener.set_nonblocking(true).unwrap();
    event_loop.register_listener(&listener, LISTENER);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            thread::spawn(move || {
                let mut stream = net::TcpStream::connect(addr).unwrap();
                stream.write_all(&[at as u8]).unwrap();
                let mut answer = [0; 2];
                stream.read_exact(&mut answer).unwrap();
                answer
            })
        })
        .collect();
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut answered = 0;
    while answered < CLIENTS {
        for token in event_loop.wait() {
            match token {
                LISTENER => {
                    while let Ok((stream, _)) = listener.accept() {
                        event_loop.register(&stream, streams.len());
                        streams.push(stream);
                    }
                    event_loop.register_listener(&listener, LISTENER);
                }
                _ => {
                    let mut byte = [0];
                    streams[token].read_exact(&mut byte).unwrap();
                    streams[token].write_all(&byte.repeat(2)).unwrap();
                    answered += 1;
                }
            }
        }
    }
    for (at, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap(), [at as u8; 2]);
    }
}

#[test]
#[allow(clippy::unnecessary_mut_passed)] // the book passes `&mut stream`
fn whatever_leads_to_a_source_can_be_registered() {
    use std::sync::{Arc, Mutex};
    let event_loop = Loop::new();
    let register = Interests::READABLE;
    let (mut stream, _peer) = pair();
    let registrator = &event_loop.registrator;
    registrator.register(&mut stream, 1, register).unwrap();
    registrator.register(&&stream, 1, register).unwrap();
    let boxed = Box::new(stream);
    registrator.register(&boxed, 1, register).unwrap();
    let shared = Arc::new(boxed);
    registrator.register(&shared, 1, register).unwrap();
    let locked = Mutex::new(shared);
    registrator
        .register(&locked.lock().unwrap(), 1, register)
        .unwrap();
}
