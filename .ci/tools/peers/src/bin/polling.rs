//! polling is one-shot, like minimio: `modify` asks for the next event.

use peers::{Contender, fill, read_byte};
use polling::{Event, Events, Poller};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

const EINPROGRESS: i32 = 115;

struct Polling {
    poller: Arc<Poller>,
    events: Events,
}

impl Contender for Polling {
    type Registry = Arc<Poller>;
    type Stream = TcpStream;
    type Connecting = TcpStream;
    type Listener = TcpListener;

    fn new(capacity: usize) -> (Self, Arc<Poller>) {
        let poller = Arc::new(Poller::new().expect("Poller::new"));
        let capacity = NonZeroUsize::new(capacity).expect("a capacity");
        let events = Events::with_capacity(capacity);
        let registry = poller.clone();
        (Polling { poller, events }, registry)
    }

    fn adopt(stream: TcpStream) -> TcpStream {
        stream
    }

    fn register(poller: &Arc<Poller>, stream: &mut TcpStream, token: usize) {
        // SAFETY: the streams are open until the program ends.
        let result = unsafe { poller.add(&*stream, Event::readable(token)) };
        result.expect("add");
    }

    fn wait(&mut self, timeout_ms: i32) {
        self.events.clear();
        let timeout = Duration::from_millis(timeout_ms as u64);
        let result = self.poller.wait(&mut self.events, Some(timeout));
        result.expect("wait");
    }

    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|event| event.key)
    }

    fn read(poller: &Arc<Poller>, stream: &TcpStream, token: usize) {
        read_byte(stream);
        let result = poller.modify(stream, Event::readable(token));
        result.expect("modify");
    }

    fn register_writer(poller: &Arc<Poller>, stream: &mut TcpStream, token: usize) {
        // SAFETY: the stream is open until the program ends.
        let result = unsafe { poller.add(&*stream, Event::writable(token)) };
        result.expect("add");
    }

    fn pour(poller: &Arc<Poller>, stream: &TcpStream, token: usize) -> usize {
        let written = fill(stream);
        let result = poller.modify(stream, Event::writable(token));
        result.expect("modify");
        written
    }

    fn listen(poller: &Arc<Poller>, token: usize) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("local_addr");
        // SAFETY: the listener is open until the program ends.
        let result = unsafe { poller.add(&listener, Event::readable(token)) };
        result.expect("add");
        (listener, addr)
    }

    fn accept(poller: &Arc<Poller>, listener: &TcpListener, token: usize) -> TcpStream {
        let (stream, _) = listener.accept().expect("accept");
        let result = poller.modify(listener, Event::readable(token));
        result.expect("modify");
        stream
    }

    fn connect(poller: &Arc<Poller>, addr: SocketAddr, token: usize) -> TcpStream {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, None).expect("socket");
        let started = socket.connect(&addr.into()).expect_err("not at once");
        assert_eq!(started.raw_os_error(), Some(EINPROGRESS));
        let stream = socket.into();
        // SAFETY: `close` deletes the stream before it closes it.
        let result = unsafe { poller.add(&stream, Event::writable(token)) };
        result.expect("add");
        stream
    }

    /// polling leaves this to its user: the same checks as for mio.
    fn finish(stream: TcpStream) -> TcpStream {
        assert!(stream.take_error().expect("take_error").is_none());
        stream.peer_addr().expect("peer_addr");
        stream
    }

    fn close(poller: &Arc<Poller>, stream: TcpStream) {
        poller.delete(stream).expect("delete");
    }
}

fn main() {
    peers::main::<Polling>();
}
