//! minimio is one-shot: `register` asks for one event.

use minimio::{Connecting, Events, Interests, Poll, Registrator, TcpListener, TcpStream};
use peers::{Contender, fill, read_byte};
use std::net::SocketAddr;

struct Minimio {
    poll: Poll,
    events: Events,
}

impl Contender for Minimio {
    type Registry = Registrator;
    type Stream = TcpStream;
    type Connecting = Connecting;
    type Listener = TcpListener;

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

    fn register_writer(registrator: &Registrator, stream: &mut TcpStream, token: usize) {
        let result = registrator.register(stream, token, Interests::WRITABLE);
        result.expect("register");
    }

    fn pour(registrator: &Registrator, stream: &TcpStream, token: usize) -> usize {
        let written = fill(stream);
        let result = registrator.register(stream, token, Interests::WRITABLE);
        result.expect("register");
        written
    }

    fn listen(registrator: &Registrator, token: usize) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        let result = registrator.register(&listener, token, Interests::READABLE);
        result.expect("register");
        (listener, addr)
    }

    fn accept(registrator: &Registrator, listener: &TcpListener, token: usize) -> TcpStream {
        let (stream, _) = listener.accept().expect("accept");
        let result = registrator.register(listener, token, Interests::READABLE);
        result.expect("register");
        stream
    }

    fn connect(registrator: &Registrator, addr: SocketAddr, token: usize) -> Connecting {
        let connecting = TcpStream::start_connect(addr).expect("start_connect");
        let result = registrator.register(&connecting, token, Interests::WRITABLE);
        result.expect("register");
        connecting
    }

    fn finish(connecting: Connecting) -> TcpStream {
        connecting.finish().expect("finish")
    }

    fn close(_: &Registrator, _: TcpStream) {}
}

fn main() {
    peers::main::<Minimio>();
}
