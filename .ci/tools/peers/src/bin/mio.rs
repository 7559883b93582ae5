//! mio is edge-triggered: one registration is enough, but its documentation requires to read until `WouldBlock`.

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use peers::{Contender, read_byte};
use std::io::{ErrorKind, Read};
use std::time::Duration;

struct Mio {
    poll: Poll,
    events: Events,
}

impl Contender for Mio {
    type Registry = Registry;
    type Stream = TcpStream;

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
}

fn main() {
    peers::main::<Mio>();
}
