//! The programs of the book work as printed there: the names, the order of the steps, `Interrupted` to end the loop,
//! `read_to_string` after one event. Only the server is ours, because the book's is somewhere on the internet.
#![allow(dead_code, clippy::unnecessary_mut_passed)] // as printed

mod common;

use minimio::{Events, Interests, Poll, Registrator, TcpStream};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::{io, io::Read, io::Write, thread, thread::JoinHandle};

const TEST_TOKEN: usize = 10;

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

/// Accepts `count` clients, then answers them, the last one first.
fn serve(count: usize) -> SocketAddr {
    let (listener, addr) = common::listen();
    thread::spawn(move || {
        let mut clients: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
        while let Some(mut client) = clients.pop() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            client.write_all(RESPONSE.as_bytes()).unwrap();
        }
    });
    addr
}

const REQUEST: &[u8] =
    b"GET /delay/1000/url/http://www.google.com HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// From the chapter "Public API": the test that the book's library has to pass.
#[test]
fn proposed_api() {
    let addr = serve(1);
    let (evt_sender, evt_receiver) = channel();
    let mut reactor = Reactor::new(evt_sender);
    let mut executor = Excutor::new(evt_receiver);

    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(REQUEST).expect("Stream write err.");

    let registrator = reactor.registrator();
    registrator
        .register(&mut stream, TEST_TOKEN, Interests::READABLE)
        .expect("registration err.");

    executor.suspend(TEST_TOKEN, move || {
        let mut buffer = String::new();
        stream.read_to_string(&mut buffer).unwrap();
        assert!(!buffer.is_empty(), "Got an empty buffer");
        assert_eq!(buffer, RESPONSE);
        registrator.close_loop().expect("close loop err.");
    });

    executor.block_on_all();
}

struct Reactor {
    handle: Option<JoinHandle<()>>,
    registrator: Option<Registrator>,
}

impl Reactor {
    fn new(evt_sender: Sender<usize>) -> Reactor {
        let mut poll = Poll::new().unwrap();
        let registrator = poll.registrator();

        // Set up the epoll/IOCP event loop in a seperate thread
        let handle = thread::spawn(move || {
            let mut events = Events::with_capacity(1024);
            loop {
                println!("Waiting! {:?}", poll);
                match poll.poll(&mut events, Some(200)) {
                    Ok(..) => (),
                    Err(ref e) if e.kind() == io::ErrorKind::Interrupted => break,
                    Err(e) => panic!("Poll error: {:?}, {}", e.kind(), e),
                };

                for event in &events {
                    let event_token = event.id();
                    evt_sender.send(event_token).expect("send event_token err.");
                }
            }
        });

        Reactor {
            handle: Some(handle),
            registrator: Some(registrator),
        }
    }

    fn registrator(&mut self) -> Registrator {
        self.registrator.take().unwrap()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        let handle = self.handle.take().unwrap();
        handle.join().unwrap();
    }
}

struct Excutor {
    events: Vec<(usize, Box<dyn FnMut()>)>,
    evt_receiver: Receiver<usize>,
}

impl Excutor {
    fn new(evt_receiver: Receiver<usize>) -> Self {
        Excutor {
            events: vec![],
            evt_receiver,
        }
    }
    fn suspend(&mut self, id: usize, f: impl FnMut() + 'static) {
        self.events.push((id, Box::new(f)));
    }
    fn resume(&mut self, event: usize) {
        let (_, f) = self
            .events
            .iter_mut()
            .find(|(e, _)| *e == event)
            .expect("Couldn't find event.");
        f();
    }
    fn block_on_all(&mut self) {
        while let Ok(received_token) = self.evt_receiver.recv() {
            assert_eq!(TEST_TOKEN, received_token, "Non matching tokens.");
            self.resume(received_token);
        }
    }
}

/// From the chapter "The Reactor-Executor Pattern": the reactor keeps the registrator, and `reactor` moves into the
/// task. (That chapter calls `Interests::readable()` and `event.id().value()`, which only an older version of the
/// book's library has.)
#[test]
fn the_reactor_registers_and_stops() {
    struct Reactor {
        handle: JoinHandle<()>,
        registrator: Registrator,
    }

    impl Reactor {
        fn new(evt_sender: Sender<usize>) -> Reactor {
            let mut poll = Poll::new().unwrap();
            let registrator = poll.registrator();

            let handle = thread::spawn(move || {
                let mut events = Events::with_capacity(1024);
                loop {
                    println!("Waiting! {:?}", poll);
                    match poll.poll(&mut events, Some(200)) {
                        Ok(..) => (),
                        Err(ref e) if e.kind() == io::ErrorKind::Interrupted => {
                            println!("INTERRUPTED: {}", e);
                            break;
                        }
                        Err(e) => panic!("Poll error: {:?}, {}", e.kind(), e),
                    };
                    for event in &events {
                        let event_token = event.id();
                        evt_sender.send(event_token).expect("send event_token err.");
                    }
                }
            });

            Reactor {
                handle,
                registrator,
            }
        }

        fn register_stream_read_interest(&self, stream: &mut TcpStream, token: usize) {
            self.registrator
                .register(stream, token, Interests::READABLE)
                .expect("registration err.");
        }

        fn stop_loop(&self) {
            self.registrator.close_loop().expect("close loop err.");
        }
    }

    let addr = serve(1);
    let (evt_sender, evt_receiver) = channel();
    let reactor = Reactor::new(evt_sender);
    let mut executor = Excutor::new(evt_receiver);

    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(REQUEST).expect("Stream write err.");
    reactor.register_stream_read_interest(&mut stream, TEST_TOKEN);

    let (result, read) = channel();
    executor.suspend(TEST_TOKEN, move || {
        let mut buffer = String::new();
        stream.read_to_string(&mut buffer).unwrap();
        assert!(!buffer.is_empty(), "Got an empty buffer");
        result.send(buffer).unwrap();
        reactor.stop_loop();
    });

    executor.block_on_all();
    assert_eq!(read.recv().unwrap(), RESPONSE);
}

/// From the tests of the book's repository: two streams, and a loop that reads up to the end of the stream.
#[test]
fn multiple_registrations() {
    let addr = serve(2);
    let mut poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let (evt_sender, evt_receiver) = channel();
    let handle = thread::spawn(move || {
        let mut events = Events::with_capacity(1024);
        loop {
            match poll.poll(&mut events, Some(200)) {
                Ok(..) => (),
                Err(ref e) if e.kind() == io::ErrorKind::Interrupted => break,
                Err(e) => panic!("Poll error: {:?}, {}", e.kind(), e),
            };
            for event in &events {
                evt_sender.send(event.id()).expect("send event_token err.");
            }
        }
    });

    let mut streams = [
        TcpStream::connect(addr).unwrap(),
        TcpStream::connect(addr).unwrap(),
    ];
    for (at, stream) in streams.iter_mut().enumerate() {
        stream.write_all(REQUEST).expect("Error writing to stream");
        registrator
            .register(stream, TEST_TOKEN + at, Interests::READABLE)
            .expect("registration err.");
    }
    for _ in 0..2 {
        let token = evt_receiver.recv().unwrap();
        let mut buffer = [0; 2048];
        let mut received = Vec::new();
        loop {
            match streams[token - TEST_TOKEN].read(&mut buffer).unwrap() {
                0 => break,
                n => received.extend_from_slice(&buffer[..n]),
            }
        }
        assert_eq!(received, RESPONSE.as_bytes());
    }
    registrator.close_loop().expect("close loop err.");
    handle.join().expect("error joining thread");
    assert!(evt_receiver.recv().is_err(), "each stream has one event");
}
