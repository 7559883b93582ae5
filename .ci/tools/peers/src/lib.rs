//! The harness: the same work for each contender. A program does one kind of work, and prints its figures.

mod counting;
mod os;
mod works;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use works::{Answer, Connect, Pour, Spin, Wake};

/// How an event-loop library is used: one value waits, another one registers, from any thread.
pub trait Contender: Sized + 'static {
    type Registry: Send + Sync + 'static;
    type Stream: AsRawFd + Send + 'static;
    type Connecting;
    type Listener;

    fn new(capacity: usize) -> (Self, Self::Registry);
    fn adopt(stream: TcpStream) -> Self::Stream;
    /// The first registration of a stream, for reading.
    fn register(registry: &Self::Registry, stream: &mut Self::Stream, token: usize);
    fn wait(&mut self, timeout_ms: i32);
    /// The tokens of the events that the wait returned.
    fn tokens(&self) -> impl Iterator<Item = usize>;
    /// Reads the byte that is there, and ensures, as the library documents it, that the next byte causes an event.
    fn read(registry: &Self::Registry, stream: &Self::Stream, token: usize);

    /// The first registration of a stream, for writing.
    fn register_writer(registry: &Self::Registry, stream: &mut Self::Stream, token: usize);
    /// Writes until there is no more room, and ensures that room causes an event. Returns the number of bytes.
    fn pour(registry: &Self::Registry, stream: &Self::Stream, token: usize) -> usize;

    /// Listens, and ensures that a client causes an event.
    fn listen(registry: &Self::Registry, token: usize) -> (Self::Listener, SocketAddr);
    /// Accepts the one client, and ensures that the next one causes an event.
    fn accept(registry: &Self::Registry, listener: &Self::Listener, token: usize) -> Self::Stream;
    /// Starts a connection, and ensures that its end causes an event.
    fn connect(registry: &Self::Registry, addr: SocketAddr, token: usize) -> Self::Connecting;
    /// Checks that the connection is established, as the library documents it.
    fn finish(connecting: Self::Connecting) -> Self::Stream;
    /// Closes a stream that is registered.
    fn close(registry: &Self::Registry, stream: Self::Stream);
}

/// For the contenders: exactly one byte is there.
pub fn read_byte(mut stream: impl Read) {
    assert_eq!(stream.read(&mut [0; 16]).expect("read"), 1);
}

/// For the contenders: there is room.
pub fn fill(mut stream: impl Write) -> usize {
    static BYTES: [u8; 1 << 20] = [0; 1 << 20];
    let mut written = 0;
    loop {
        match stream.write(&BYTES) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("write: {error}"),
        }
    }
}

/// One kind of work. A round consists of operations: mostly, each event is one.
trait Work<C: Contender> {
    /// So much time passes only if something is broken.
    const TIMEOUT_MS: i32 = 2000;

    fn operations_per_round(&self) -> usize;

    fn events_per_round(&self) -> usize {
        self.operations_per_round()
    }

    fn begin_round(&mut self) {}
    fn on_event(&mut self, registry: &C::Registry, token: usize);

    /// How many operations a wait is, in addition to its events.
    fn after_wait(&mut self) -> usize {
        0
    }

    /// The time that all rounds took, unless it is the time that has passed.
    fn nanoseconds(&self, _rounds: usize, passed: u64) -> u64 {
        passed
    }
}

/// A program does only one kind of work, because what it calls at only one place can be inlined there.
pub fn main<C: Contender>() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, work, rounds] = &arguments[..] else {
        panic!("usage: WORK ROUNDS");
    };
    let rounds = rounds.parse().expect("a number of rounds");
    if cfg!(feature = "spin") {
        measure(Spin::<C>::new, rounds);
    } else if cfg!(feature = "wake") {
        measure::<C, _>(Wake::new::<C>, rounds);
    } else if cfg!(feature = "pour") {
        measure(Pour::<C>::new, rounds);
    } else if cfg!(feature = "connect") {
        measure(Connect::<C>::new, rounds);
    } else {
        let (active, idle) = match work.as_str() {
            "ping" => (1, 0),
            "burst" => (1000, 0),
            "idle" => (1, 10_000),
            _ => panic!("no such work: {work}"),
        };
        measure(|registry| Answer::<C>::new(registry, active, idle), rounds);
    }
}

/// Makes the work and does it, all in one function: LLVM inlines the libraries' calls into it as into a user's loop.
#[inline(never)]
fn measure<C: Contender, W: Work<C>>(new: impl FnOnce(&Arc<C::Registry>) -> W, rounds: usize) {
    let (mut waiter, registry) = C::new(1024);
    let registry = Arc::new(registry);
    let mut work = new(&registry);
    let (allocations, start) = (counting::allocations(), os::now());
    for _ in 0..rounds {
        work.begin_round();
        let mut left = work.events_per_round();
        while left > 0 {
            waiter.wait(W::TIMEOUT_MS);
            let before = left;
            for token in waiter.tokens() {
                work.on_event(&registry, token);
                left -= 1;
            }
            left -= work.after_wait();
            assert!(left < before, "no event came");
        }
    }
    let nanoseconds = work.nanoseconds(rounds, os::now() - start);
    let allocations = counting::allocations() - allocations;
    let operations = rounds * work.operations_per_round();
    println!("operations={operations} nanoseconds={nanoseconds} allocations={allocations}");
}
