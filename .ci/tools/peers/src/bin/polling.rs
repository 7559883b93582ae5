//! polling is one-shot, like minimio: `modify` asks for the next event.

use peers::{Contender, read_byte};
use polling::{Event, Events, Poller};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

struct Polling {
    poller: Arc<Poller>,
    events: Events,
}

impl Contender for Polling {
    type Registry = Arc<Poller>;
    type Stream = TcpStream;

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
}

fn main() {
    peers::main::<Polling>();
}
