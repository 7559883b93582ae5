//! minimio is one-shot: `register` asks for one event.

use minimio::{Events, Interests, Poll, Registrator, TcpStream};
use peers::{Contender, read_byte};

struct Minimio {
    poll: Poll,
    events: Events,
}

impl Contender for Minimio {
    type Registry = Registrator;
    type Stream = TcpStream;

    fn new(capacity: usize) -> (Self, Registrator) {
        let poll = Poll::new().expect("Poll::new");
        let registrator = poll.registrator();
        let events = Events::with_capacity(capacity);
        (Minimio { poll, events }, registrator)
    }

    fn adopt(stream: std::net::TcpStream) -> TcpStream {
        TcpStream::from(stream)
    }

    fn register(registrator: &Registrator, stream: &mut TcpStream, token: usize) {
        let result = registrator.register(stream, token, Interests::READABLE);
        result.expect("register");
    }

    fn wait(&mut self, timeout_ms: i32) {
        let result = self.poll.poll(&mut self.events, Some(timeout_ms));
        result.expect("poll");
    }

    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|event| event.id())
    }

    fn read(registrator: &Registrator, stream: &TcpStream, token: usize) {
        read_byte(stream);
        let result = registrator.register(stream, token, Interests::READABLE);
        result.expect("register");
    }
}

fn main() {
    peers::main::<Minimio>();
}
