//! Connections are made through the loop: start one, wait for its event, finish it.

mod common;

use common::os::{allow_open_handles, duplicate, reset_when_closed};
use common::{Loop, listener, nobody, readable_pair, waiting_connection, within_patience};
use minimio::{Connecting, Interests, TcpListener, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::thread;

/// Starts a connection, and registers it.
fn connect(event_loop: &Loop, addr: SocketAddr, token: Token) -> Connecting {
    let connecting = TcpStream::start_connect(addr).unwrap();
    event_loop.register_connecting(&connecting, token);
    connecting
}

/// Makes a connection. Some systems return an error from `start_connect` that others report with the event.
fn outcome(event_loop: &mut Loop, addr: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpStream::start_connect(addr)?;
    event_loop.register_connecting(&connecting, 1);
    event_loop.expect(&[1]);
    connecting.finish()
}

#[test]
fn a_connection_is_made() {
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    let connecting = connect(&event_loop, addr, 1);
    event_loop.expect(&[1]);
    let mut stream = connecting.finish().unwrap();
    let (mut accepted, peer_addr) = listener.accept().unwrap();
    assert_eq!(peer_addr, stream.local_addr().unwrap());
    assert_eq!(accepted.local_addr().unwrap(), stream.peer_addr().unwrap());

    // The stream is non-blocking, and belongs to the loop.
    let nothing = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    event_loop.register(&stream, 2);
    accepted.write_all(b"hello").unwrap();
    event_loop.expect(&[2]);
    let mut text = [0; 8];
    assert_eq!(stream.read(&mut text).unwrap(), 5);
    event_loop.register_to_write(&stream, 3);
    event_loop.expect(&[3]);
    stream.write_all(b"goodbye").unwrap();
    drop(stream);
    let mut text = String::new();
    accepted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "goodbye");
}

#[test]
fn a_connection_is_made_over_ipv6() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        println!("this machine has no IPv6");
        return;
    };
    let mut stream = outcome(&mut Loop::new(), listener.local_addr().unwrap()).unwrap();
    stream.write_all(b"!").unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
}

/// On loopback, a connection may be established before it is registered.
#[test]
fn a_connection_that_is_there_before_gives_an_event() {
    let mut event_loop = Loop::new();
    let (listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    event_loop.expect_none();
    event_loop.register_connecting(&connecting, 1);
    event_loop.expect(&[1]);
    event_loop.expect_none();
    connecting.finish().unwrap();
}

#[test]
fn a_refused_connection_is_an_event_and_a_reason() {
    let (_taken, addr) = nobody();
    for _ in 0..3 {
        let error = outcome(&mut Loop::new(), addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    }
}

/// TCP cannot connect to a broadcast or multicast address. Each system has its own error for that.
#[test]
fn what_cannot_be_reached_is_an_error() {
    for addr in ["255.255.255.255:9", "224.0.0.1:9"] {
        let error = outcome(&mut Loop::new(), addr.parse().unwrap()).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "{addr}: {error}");
        assert_ne!(error.raw_os_error(), Some(0));
    }
}

#[test]
fn registering_again_before_the_event_replaces_the_token() {
    let mut event_loop = Loop::new();
    let (_listener, addr) = listener();
    let connecting = connect(&event_loop, addr, 1);
    event_loop.register_connecting(&connecting, 2);
    event_loop.expect(&[2]);
}

#[test]
fn it_is_never_readable() {
    let mut event_loop = Loop::new();
    let (_listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).unwrap();
    for _ in 0..2 {
        let refused = event_loop
            .registrator
            .register(&connecting, 1, Interests::READABLE);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        event_loop.expect_none();
        event_loop.register_connecting(&connecting, 2);
        event_loop.expect(&[2]);
    }
    event_loop.registrator.close_loop().unwrap();
    let closed = event_loop
        .registrator
        .register(&connecting, 1, Interests::READABLE);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn it_belongs_to_one_poll_and_so_does_its_stream() {
    let (mut first, second) = (Loop::new(), Loop::new());
    let (_listener, addr) = listener();
    let connecting = connect(&first, addr, 1);
    let refused = second
        .registrator
        .register(&connecting, 2, Interests::WRITABLE);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    first.expect(&[1]);
    let stream = connecting.finish().unwrap();
    for interests in [Interests::READABLE, Interests::WRITABLE] {
        let refused = second.registrator.register(&stream, 2, interests);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        first.registrator.register(&stream, 3, interests).unwrap();
    }
}

#[test]
fn a_connection_that_takes_its_time_has_its_event_when_it_is_there() {
    let mut event_loop = Loop::new();
    let (listener, connecting, made) = waiting_connection(&mut event_loop);
    for connecting in made {
        connecting.finish().unwrap();
        listener.accept().unwrap();
    }
    assert_eq!(event_loop.wait(), [1]);
    match connecting.finish() {
        Ok(mut stream) => {
            stream.write_all(b"!").unwrap();
            assert_eq!(listener.accept().unwrap().0.read(&mut [0; 8]).unwrap(), 1);
        }
        // Windows refuses the connection after a while if the listener's queue has no room for it.
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
    }
}

#[test]
fn a_connection_that_takes_its_time_is_not_finished() {
    let mut event_loop = Loop::new();
    let (_listener, connecting, _made) = waiting_connection(&mut event_loop);
    let not_yet = connecting.finish().unwrap_err();
    assert_eq!(not_yet.kind(), ErrorKind::WouldBlock);
    event_loop.expect_none();
}

/// One connection is dropped while it is being made, the others before `poll` returns their events.
#[test]
fn a_dropped_connection_has_no_event() {
    for has_duplicate in [false, true] {
        let mut event_loop = Loop::new();
        let (listener, waiting, made) = waiting_connection(&mut event_loop);
        let duplicate = has_duplicate.then(|| duplicate(&waiting));
        drop(waiting);
        for connecting in made {
            event_loop.register_connecting(&connecting, 2);
            drop(connecting);
            listener.accept().unwrap();
        }
        event_loop.expect_none();
        drop(duplicate);
        event_loop.expect_none();
    }
}

#[test]
fn a_connection_without_its_poll_is_finished_all_the_same() {
    let event_loop = Loop::new();
    let (listener, addr) = listener();
    let connecting = connect(&event_loop, addr, 1);
    drop(event_loop);
    let (mut accepted, _) = listener.accept().unwrap();
    let mut stream = connecting.finish().unwrap();
    stream.write_all(b"!").unwrap();
    assert_eq!(accepted.read(&mut [0; 8]).unwrap(), 1);
}

/// For example, a thread that resolves a name may then connect to its address.
#[test]
fn any_thread_may_start_a_connection_while_another_polls() {
    let mut event_loop = Loop::new();
    let registrator = event_loop.registrator.clone();
    let (_listener, addr) = listener();
    let (first, _peer) = readable_pair();
    event_loop.register(&first, 1);
    let (sender, took_event) = std::sync::mpsc::channel();
    let poller = thread::spawn(move || {
        event_loop.expect(&[1]);
        sender.send(()).unwrap();
        assert_eq!(event_loop.wait(), [2]);
    });
    took_event.recv().unwrap();
    let connecting = TcpStream::start_connect(addr).unwrap();
    registrator
        .register(&connecting, 2, Interests::WRITABLE)
        .unwrap();
    within_patience(|| poller.join()).unwrap();
    connecting.finish().unwrap();
}

/// One thread and one loop handle both ends of all connections.
#[test]
fn a_thousand_connections_are_made_at_once() {
    // Each backlog has room for its share of the clients. If a backlog overflows, some systems drop what the client
    // sends, and the client only retries after a second or more.
    const LISTENERS: usize = 10;
    const COUNT: usize = 1000;
    allow_open_handles(2 * COUNT + 200);
    let mut event_loop = Loop::with_capacity(64);
    let listeners: Vec<_> = (0..LISTENERS).map(|_| listener()).collect();
    for (token, (listener, _)) in listeners.iter().enumerate() {
        listener.set_nonblocking(true).unwrap();
        event_loop.register_listener(listener, token);
    }
    let mut connecting: Vec<_> = (0..COUNT)
        .map(|n| {
            let (_, addr) = listeners[n % LISTENERS];
            Some(connect(&event_loop, addr, LISTENERS + n))
        })
        .collect();
    let (mut streams, mut accepted) = (Vec::new(), Vec::new());
    while streams.len() < COUNT || accepted.len() < COUNT {
        for token in event_loop.wait() {
            let Some((listener, _)) = listeners.get(token) else {
                let connecting = connecting[token - LISTENERS].take().expect("one event");
                let stream = connecting.finish().unwrap();
                reset_when_closed(&stream);
                streams.push(stream);
                continue;
            };
            match listener.accept() {
                Ok((stream, _)) => accepted.push(stream),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            event_loop.register_listener(listener, token);
        }
    }
    for stream in &mut streams {
        stream.write_all(b"!").unwrap();
    }
    for stream in &mut accepted {
        stream.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn it_prints_itself_and_may_be_sent_and_shared() {
    fn is_send_and_sync<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    let (listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).unwrap();
    is_send_and_sync(&connecting);
    is_send_and_sync(&listener);
    for text in [format!("{connecting:?}"), format!("{listener:?}")] {
        assert!(text.contains(": "), "{text}");
    }
}

#[test]
fn options_and_errors_are_those_of_the_system() {
    let (listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let stream = connecting.finish().unwrap();
    for stream in [&stream, &accepted] {
        stream.set_nodelay(true).unwrap();
        assert!(net::TcpStream::from(duplicate(stream)).nodelay().unwrap());
        assert!(stream.take_error().unwrap().is_none());
    }
    assert!(listener.take_error().unwrap().is_none());
}
