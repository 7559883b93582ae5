//! mio is edge-triggered: one registration is enough, but its documentation requires to read until `WouldBlock`.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use peers::{Contender, fill, read_byte};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

struct Mio {
    poll: Poll,
    events: Events,
}

impl Contender for Mio {
    type Registry = Registry;
    type Stream = TcpStream;
    type Connecting = TcpStream;
    type Listener = TcpListener;

    fn new(capacity: usize) -> (Self, Registry) {
        let poll = Poll::new().expect("Poll::new");
        let registry = poll.registry().try_clone().expect("try_clone");
        let events = Events::with_capacity(capacity);
        (Mio { poll, events }, registry)
    }

    fn adopt(stream: std::net::TcpStream) -> TcpStream {
        TcpStream::from_std(stream)
    }

    fn register(registry: &Registry, stream: &mut TcpStream, token: usize) {
        let result = registry.register(stream, Token(token), Interest::READABLE);
        result.expect("register");
    }

    fn wait(&mut self, timeout_ms: i32) {
        let timeout = Duration::from_millis(timeout_ms as u64);
        let result = self.poll.poll(&mut self.events, Some(timeout));
        result.expect("poll");
    }

    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|event| event.token().0)
    }

    fn read(_: &Registry, mut stream: &TcpStream, _: usize) {
        read_byte(stream);
        let end = stream.read(&mut [0; 16]).expect_err("no more to read");
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
    }

    fn register_writer(registry: &Registry, stream: &mut TcpStream, token: usize) {
        let result = registry.register(stream, Token(token), Interest::WRITABLE);
        result.expect("register");
    }

    fn pour(_: &Registry, stream: &TcpStream, _: usize) -> usize {
        fill(stream)
    }

    fn listen(registry: &Registry, token: usize) -> (TcpListener, SocketAddr) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = TcpListener::bind(any).expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        let result = registry.register(&mut listener, Token(token), Interest::READABLE);
        result.expect("register");
        (listener, addr)
    }

    fn accept(_: &Registry, listener: &TcpListener, _: usize) -> TcpStream {
        let (stream, _) = listener.accept().expect("accept");
        let end = listener.accept().expect_err("no more to accept");
        assert_eq!(end.kind(), ErrorKind::WouldBlock);
        stream
    }

    fn connect(registry: &Registry, addr: SocketAddr, token: usize) -> TcpStream {
        let mut stream = TcpStream::connect(addr).expect("connect");
        let result = registry.register(&mut stream, Token(token), Interest::WRITABLE);
        result.expect("register");
        stream
    }

    /// The documentation of `connect` asks for both checks.
    fn finish(stream: TcpStream) -> TcpStream {
        assert!(stream.take_error().expect("take_error").is_none());
        stream.peer_addr().expect("peer_addr");
        stream
    }

    /// The documentation of `Source` requires to deregister before the drop.
    fn close(registry: &Registry, mut stream: TcpStream) {
        registry.deregister(&mut stream).expect("deregister");
    }
}

fn main() {
    peers::main::<Mio>();
}
