//! What the contenders do.

use crate::{Contender, Work, os};
use std::io::{IoSliceMut, Read};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// A round: one byte for each active socket; each event is answered by reading the byte. The idle sockets stay silent.
pub struct Answer<C: Contender> {
    streams: Vec<C::Stream>,
    active: Vec<TcpStream>,
}

impl<C: Contender> Answer<C> {
    pub fn new(registry: &C::Registry, active: usize, idle: usize) -> Self {
        // Both ends of a connection are idle sockets, which halves the number of descriptors.
        let (mut near, mut far) = pairs(active + idle / 2);
        near.extend(far.drain(active..));
        let register = |(token, stream)| {
            let mut stream = C::adopt(stream);
            C::register(registry, &mut stream, token);
            stream
        };
        let streams = near.into_iter().enumerate().map(register).collect();
        Answer {
            streams,
            active: far,
        }
    }
}

impl<C: Contender> Work<C> for Answer<C> {
    fn begin_round(&mut self) {
        self.active.iter().for_each(os::send);
    }

    fn operations_per_round(&self) -> usize {
        self.active.len()
    }

    fn on_event(&mut self, registry: &C::Registry, token: usize) {
        C::read(registry, &self.streams[token], token);
    }
}

/// A round: a wait that does not sleep and returns no event.
pub struct Spin<C: Contender> {
    _silent: C::Stream,
    _peer: TcpStream,
}

impl<C: Contender> Spin<C> {
    pub fn new(registry: &Arc<C::Registry>) -> Self {
        let (near, peer) = pair();
        let mut silent = C::adopt(near);
        C::register(registry, &mut silent, 0);
        Spin {
            _silent: silent,
            _peer: peer,
        }
    }
}

impl<C: Contender> Work<C> for Spin<C> {
    const TIMEOUT_MS: i32 = 0;

    fn operations_per_round(&self) -> usize {
        1
    }

    fn on_event(&mut self, _: &C::Registry, _: usize) {
        panic!("the peer has sent nothing");
    }

    fn after_wait(&mut self) -> usize {
        1
    }
}

/// A round: while this thread sleeps in its wait, another one registers a socket on which a byte has arrived before.
pub struct Wake {
    /// Never closed: after the last round, the other thread would do things that are counted.
    go: ManuallyDrop<TcpStream>,
    registered_at: Arc<AtomicU64>,
    /// The number of the next round, and so its token.
    round: usize,
    /// How often each latency occurred, in steps of `STEP_NS`. Sorting would take more or fewer instructions each time.
    latencies: Vec<u32>,
}

/// Each round needs a new socket.
const MOST_WAKES: usize = 2000;

const STEP_NS: u64 = 256;
const STEPS: usize = 4096;

impl Wake {
    pub fn new<C: Contender>(registry: &Arc<C::Registry>) -> Self {
        let (go, mut wait_for_go) = pair();
        wait_for_go.set_nonblocking(false).expect("set_nonblocking");
        let registered_at = Arc::new(AtomicU64::new(0));
        let (time, registry) = (registered_at.clone(), registry.clone());
        let (near, far) = pairs(MOST_WAKES);
        far.iter().for_each(os::send);
        thread::spawn(move || {
            let _far = far;
            let mut streams: Vec<C::Stream> = near.into_iter().map(C::adopt).collect();
            for (token, stream) in streams.iter_mut().enumerate() {
                let mut byte = [0];
                let n = wait_for_go.read_vectored(&mut [IoSliceMut::new(&mut byte)]);
                assert_eq!(n.expect("readv"), 1);
                // The other thread needs about so long until it sleeps in its wait.
                thread::sleep(Duration::from_micros(50));
                time.store(os::now(), Relaxed);
                C::register(&registry, stream, token);
            }
        });
        Wake {
            go: ManuallyDrop::new(go),
            registered_at,
            round: 0,
            latencies: vec![0; STEPS],
        }
    }
}

impl<C: Contender> Work<C> for Wake {
    fn begin_round(&mut self) {
        os::send(&self.go);
    }

    fn operations_per_round(&self) -> usize {
        1
    }

    fn on_event(&mut self, _: &C::Registry, token: usize) {
        assert_eq!(token, self.round, "not the event of this round");
        self.round += 1;
        let latency = os::now() - self.registered_at.load(Relaxed);
        self.latencies[(STEPS - 1).min((latency / STEP_NS) as usize)] += 1;
    }

    /// The lower decile of the latencies, because on a busy machine more than half of them measure other programs.
    fn nanoseconds(&self, rounds: usize, _: u64) -> u64 {
        let mut left = rounds / 10;
        let decile = self.latencies.iter().position(|&n| {
            left = left.saturating_sub(n as usize);
            left == 0
        });
        decile.expect("a round has a latency") as u64 * STEP_NS * rounds as u64
    }
}

/// A round: the peer reads all that it was sent; the event that there is room is answered by writing until there is none.
pub struct Pour<C: Contender> {
    stream: C::Stream,
    peer: TcpStream,
    /// How many bytes the peer has not read yet.
    sent: usize,
    buffer: Vec<u8>,
}

impl<C: Contender> Pour<C> {
    pub fn new(registry: &Arc<C::Registry>) -> Self {
        let (near, peer) = pair();
        os::fix_buffers(&near, 1 << 16);
        os::fix_buffers(&peer, 1 << 16);
        let mut stream = C::adopt(near);
        C::register_writer(registry, &mut stream, 0);
        Pour {
            stream,
            peer,
            sent: 0,
            buffer: vec![0; 1 << 20],
        }
    }
}

impl<C: Contender> Work<C> for Pour<C> {
    fn begin_round(&mut self) {
        while self.sent > 0 {
            let buffer = IoSliceMut::new(&mut self.buffer);
            self.sent -= self.peer.read_vectored(&mut [buffer]).expect("readv");
        }
    }

    fn operations_per_round(&self) -> usize {
        1
    }

    fn on_event(&mut self, registry: &C::Registry, token: usize) {
        self.sent = C::pour(registry, &self.stream, token);
        assert!(self.sent > 0, "there was no room");
    }
}

/// A round: the connection of the round before is closed, and one to a listener of the same loop is made and accepted.
pub struct Connect<C: Contender> {
    registry: Arc<C::Registry>,
    listener: C::Listener,
    addr: SocketAddr,
    connecting: Option<C::Connecting>,
    near: Option<C::Stream>,
    far: Option<C::Stream>,
}

const LISTENER: usize = 0;
const CLIENT: usize = 1;

impl<C: Contender> Connect<C> {
    pub fn new(registry: &Arc<C::Registry>) -> Self {
        let (listener, addr) = C::listen(registry, LISTENER);
        Connect {
            registry: registry.clone(),
            listener,
            addr,
            connecting: None,
            near: None,
            far: None,
        }
    }
}

impl<C: Contender> Work<C> for Connect<C> {
    fn begin_round(&mut self) {
        self.far = None;
        if let Some(near) = self.near.take() {
            C::close(&self.registry, near);
        }
        self.connecting = Some(C::connect(&self.registry, self.addr, CLIENT));
    }

    fn operations_per_round(&self) -> usize {
        1
    }

    fn events_per_round(&self) -> usize {
        2
    }

    fn on_event(&mut self, registry: &C::Registry, token: usize) {
        if token == LISTENER {
            self.far = Some(C::accept(registry, &self.listener, LISTENER));
        } else {
            let connecting = self.connecting.take().expect("one event a round");
            let near = C::finish(connecting);
            os::reset_on_close(&near);
            self.near = Some(near);
        }
    }
}

/// A connection: the contender's end, which does not block, and the other one.
fn pair() -> (TcpStream, TcpStream) {
    let (mut near, mut far) = pairs(1);
    (near.remove(0), far.remove(0))
}

fn pairs(count: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    let connect = |_| {
        let near = TcpStream::connect(addr).expect("connect");
        near.set_nonblocking(true).expect("set_nonblocking");
        os::reset_on_close(&near);
        let (far, _) = listener.accept().expect("accept");
        far.set_nodelay(true).expect("set_nodelay");
        (near, far)
    };
    (0..count).map(connect).unzip()
}
