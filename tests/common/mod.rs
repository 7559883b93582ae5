//! Code that the tests share.
//!
//! A test waits until what it expects has happened, and not for a fixed time. If that takes longer than `PATIENCE`, the
//! test fails.
#![allow(dead_code)] // each test file is a program of its own, and none of them uses everything

pub mod counting;
pub mod delayserver;
pub mod os;
pub mod random;

use minimio::{Connecting, Events, Interests, Poll, Registrator, TcpStream, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::{self, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a stream can be registered for.
pub const DIRECTIONS: [Interests; 2] = [Interests::READABLE, Interests::WRITABLE];

/// Returns both ends of a connection: the stream under test, and its peer.
pub fn pair() -> (TcpStream, net::TcpStream) {
    let (near, far) = std_pair();
    (near.into(), far)
}

/// All connections share one listener, because making one for each would be half of the work.
static LISTENER: LazyLock<Mutex<TcpListener>> = LazyLock::new(|| Mutex::new(listen().0));

pub fn std_pair() -> (net::TcpStream, net::TcpStream) {
    let listener = LISTENER.lock().expect("a listener");
    let addr = listener.local_addr().expect("local_addr");
    let near = net::TcpStream::connect(addr).expect("connect");
    let (far, _) = listener.accept().expect("accept");
    far.set_nodelay(true).expect("set_nodelay");
    (near, far)
}

pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    (listener, addr)
}

/// Returns a listener that can be registered, and its address.
pub fn listener() -> (minimio::TcpListener, SocketAddr) {
    let (listener, addr) = listen();
    (listener.into(), addr)
}

/// A pattern of bytes that reveals lost, repeated and reordered bytes. Its period is a prime number.
pub fn byte_at(place: usize) -> u8 {
    (place % PERIOD) as u8
}

/// Returns `len` bytes of the pattern, beginning at `place`.
pub fn bytes_at(place: usize, len: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD + MAX_BYTES).map(byte_at).collect());
    &PATTERN[place % PERIOD..][..len]
}

const PERIOD: usize = 251;

/// The largest `len` of `bytes_at`.
pub const MAX_BYTES: usize = 64 << 10;

/// Returns an address at which no program listens, and both ends of a connection. The connection was accepted at this
/// address, and keeps the address in use. (The system could give a free address to another test's listener. It could
/// also give the address of a client to a second client: Linux then connects that client to itself.)
pub fn nobody() -> ([net::TcpStream; 2], SocketAddr) {
    let (listener, addr) = listen();
    let client = net::TcpStream::connect(addr).expect("connect");
    let (accepted, _) = listener.accept().expect("accept");
    os::reset_when_closed(&client);
    ([client, accepted], addr)
}

/// A connection with a byte to read.
pub fn readable_pair() -> (TcpStream, net::TcpStream) {
    let (near, mut far) = pair();
    far.write_all(b"!").expect("write");
    wait_for_data(&near);
    (near, far)
}

/// Fills the queue of a listener. Returns the listener, one connection that is still being made because the queue has
/// no room for it, and those that were made before.
pub fn waiting_connection(
    event_loop: &mut Loop,
) -> (minimio::TcpListener, Connecting, Vec<Connecting>) {
    const MANY: usize = 1000;
    let (listener, addr) = listener();
    os::set_backlog(&listener, 0);
    let mut made = Vec::new();
    while made.len() < MANY {
        let connecting = TcpStream::start_connect(addr).expect("start_connect");
        event_loop.register_connecting(&connecting, 1);
        if !event_loop.has_event(1) {
            return (listener, connecting, made);
        }
        made.push(connecting);
    }
    panic!("the listener's queue has room for {MANY} clients and more");
}

/// Waits until the stream has data to read. Even on loopback, data may arrive after the peer's `write` has returned.
pub fn wait_for_data(stream: &TcpStream) {
    let is_there = os::wait_for_data(stream, PATIENCE.as_millis() as i32);
    assert!(is_there, "no data arrived within {PATIENCE:?}");
}

/// The same for a registered stream, except on Windows, where the data goes to the buffer that the stream has lent.
pub fn wait_for_data_unless_lent(stream: &TcpStream) {
    if cfg!(unix) {
        wait_for_data(stream);
    }
}

/// Writes until there is no room. Returns the number of bytes written. (The system may make room a moment later by
/// moving bytes to the peer's side.)
pub fn fill(stream: &TcpStream) -> usize {
    fill_from(stream, 0)
}

/// The same, beginning at `place` of the pattern.
pub fn fill_from(mut stream: &TcpStream, place: usize) -> usize {
    stream.set_nonblocking(true).expect("set_nonblocking");
    let mut written = 0;
    loop {
        match stream.write(bytes_at(place + written, MAX_BYTES)) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a stream that is registered for writing and has no room, its peer, and how many bytes the peer has to read
/// to make room. (The send buffer has its usual size. A small one would have room again as soon as the peer's side
/// acknowledges the bytes, which may be a little later.)
pub fn full_pair(event_loop: &mut Loop, token: Token) -> (TcpStream, net::TcpStream, usize) {
    let (stream, peer) = pair();
    let mut written = fill(&stream);
    // The system may still move bytes to the peer's side, which makes room. An event must mean that there is room.
    while event_loop.is_writable(&stream, token) {
        let more = fill_from(&stream, written);
        assert_ne!(more, 0, "there is an event, but no room");
        written += more;
    }
    (stream, peer, written)
}

/// Reads `len` bytes, which must be those of the pattern.
pub fn read_pattern(mut peer: &net::TcpStream, len: usize) {
    let (mut received, mut buffer) = (0, vec![0; MAX_BYTES]);
    while received < len {
        let room = &mut buffer[..MAX_BYTES.min(len - received)];
        let n = peer.read(room).expect("read");
        assert!(n > 0, "the stream ended after {received} of {len} bytes");
        let is_pattern = room[..n] == *bytes_at(received, n);
        assert!(is_pattern, "wrong bytes after byte {received}");
        received += n;
    }
}

/// Resets the connection. (On Linux and Windows it would be enough to close a socket with unread data, but NetBSD and
/// FreeBSD send a FIN then.)
pub fn reset(peer: net::TcpStream) {
    os::reset_when_closed(&peer);
}

/// Locks out other tests that count the open handles of the process.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event loop that can check for exactly the expected events.
pub struct Loop {
    pub poll: Poll,
    pub registrator: Registrator,
    pub events: Events,
    fence: (TcpStream, net::TcpStream),
}

/// No test registers anything else with this token.
const FENCE: Token = 0xFE9CE;

impl Loop {
    pub fn new() -> Loop {
        Loop::with_capacity(1024)
    }

    pub fn with_capacity(capacity: usize) -> Loop {
        let poll = Poll::new().expect("Poll::new");
        let registrator = poll.registrator();
        let events = Events::with_capacity(capacity);
        Loop {
            poll,
            registrator,
            events,
            fence: readable_pair(),
        }
    }

    pub fn register(&self, stream: &TcpStream, token: Token) {
        self.registrator
            .register(stream, token, Interests::READABLE)
            .expect("register");
    }

    pub fn register_to_write(&self, stream: &TcpStream, token: Token) {
        self.registrator
            .register(stream, token, Interests::WRITABLE)
            .expect("register");
    }

    pub fn register_connecting(&self, connecting: &Connecting, token: Token) {
        self.registrator
            .register(connecting, token, Interests::WRITABLE)
            .expect("register");
    }

    pub fn register_listener(&self, listener: &minimio::TcpListener, token: Token) {
        self.registrator
            .register(listener, token, Interests::READABLE)
            .expect("register");
    }

    /// The tokens of the next events, at least one. An event says which direction it is about.
    pub fn wait(&mut self) -> Vec<Token> {
        let n = self
            .poll
            .poll(&mut self.events, Some(PATIENCE.as_millis() as i32))
            .expect("poll");
        assert!(n > 0, "no event came within {PATIENCE:?}");
        assert_eq!(n, self.events.len());
        for event in &self.events {
            assert_ne!(event.is_readable(), event.is_writable());
        }
        self.events.iter().map(|event| event.id()).collect()
    }

    /// Whether the stream has an event for writing now. If not, it remains registered.
    pub fn is_writable(&mut self, stream: &TcpStream, token: Token) -> bool {
        self.register_to_write(stream, token);
        self.has_event(token)
    }

    /// Whether there is an event with this token now. There must be no other event.
    pub fn has_event(&mut self, token: Token) -> bool {
        self.register(&self.fence.0, FENCE);
        let mut came = Vec::new();
        while !came.contains(&FENCE) {
            came.extend(self.wait());
        }
        came.retain(|&token| token != FENCE);
        assert!(came.is_empty() || came == [token], "{came:?}");
        !came.is_empty()
    }

    /// Waits for these events, in any order, and checks that there are no others: after them it registers a stream that
    /// is always readable, and whose event must be the only one left.
    #[track_caller]
    pub fn expect(&mut self, tokens: &[Token]) {
        let mut came = Vec::new();
        while came.len() < tokens.len() {
            came.extend(self.wait());
        }
        self.register(&self.fence.0, FENCE);
        while !came.contains(&FENCE) {
            came.extend(self.wait());
        }
        came.retain(|&token| token != FENCE);
        let mut tokens = tokens.to_vec();
        tokens.sort();
        came.sort();
        assert_eq!(
            came, tokens,
            "the events (left) are not the expected ones (right)"
        );
    }

    #[track_caller]
    pub fn expect_none(&mut self) {
        self.expect(&[]);
    }
}

/// Prepares a loop for tests that count allocations. A backend may have a table of waiting registrations, which grows
/// with their number, and sometimes when it is only half full. After this call the table is large enough for twenty
/// streams.
pub fn make_room(event_loop: &mut Loop) {
    let pairs: Vec<_> = (0..50).map(|_| pair()).collect();
    for (stream, _) in &pairs {
        event_loop.register(stream, 1);
        event_loop.register_to_write(stream, 1);
    }
    drop(pairs);
    event_loop.expect_none();
}

/// The stages of a stream's two registrations when something is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    pub to_read: Stage,
    pub to_write: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Stage {
    Unregistered,
    Waiting,
    EventNotTaken,
    EventTaken,
    Read,
}

const STAGES: [Stage; 5] = [
    Stage::Unregistered,
    Stage::Waiting,
    Stage::EventNotTaken,
    Stage::EventTaken,
    Stage::Read,
];

/// All combinations. (`Read` is a stage of reading only.)
pub const STATES: [State; 20] = {
    let (to_read, to_write) = (Stage::Unregistered, Stage::Unregistered);
    let mut states = [State { to_read, to_write }; 20];
    let mut at = 0;
    while at < states.len() {
        let (to_read, to_write) = (STAGES[at / 4], STAGES[at % 4]);
        states[at] = State { to_read, to_write };
        at += 1;
    }
    states
};

impl State {
    pub fn is_unregistered(self) -> bool {
        self == STATES[0]
    }

    pub fn has_unread(self) -> bool {
        matches!(self.to_read, Stage::EventNotTaken | Stage::EventTaken)
    }

    /// The stream waits for room to write.
    pub fn is_full(self) -> bool {
        self.to_write == Stage::Waiting
    }
}

pub fn stream_in(state: State, event_loop: &mut Loop) -> (TcpStream, net::TcpStream) {
    let (mut stream, mut peer) = pair();
    let State { to_read, to_write } = state;
    // Events that are taken come first, because `expect` allows no other event.
    if to_read >= Stage::EventTaken {
        event_loop.register(&stream, 1);
        peer.write_all(b"!").unwrap();
        event_loop.expect(&[1]);
    }
    if to_read == Stage::Read {
        stream.read_exact(&mut [0]).unwrap();
    }
    if to_write == Stage::EventTaken {
        event_loop.register_to_write(&stream, 2);
        event_loop.expect(&[2]);
    }
    if state.is_full() {
        os::limit_send_buffer(&stream);
        fill(&stream);
        stream.set_nonblocking(false).unwrap();
    }
    if matches!(to_read, Stage::Waiting | Stage::EventNotTaken) {
        event_loop.register(&stream, 1);
    }
    if matches!(to_write, Stage::Waiting | Stage::EventNotTaken) {
        event_loop.register_to_write(&stream, 2);
    }
    if to_read == Stage::EventNotTaken {
        peer.write_all(b"!").unwrap();
    }
    (stream, peer)
}

/// The stages of a source that is not read: a listener, or a connection that is being made.
pub const STAGES_OF_ONE: [Stage; 4] = {
    let [unregistered, waiting, not_taken, taken, _] = STAGES;
    [unregistered, waiting, not_taken, taken]
};

/// Returns a connection that is being made, with its listener, and the connections that fill the queue if it waits.
pub fn connecting_in(
    stage: Stage,
    event_loop: &mut Loop,
) -> (minimio::TcpListener, Connecting, Vec<Connecting>) {
    if stage == Stage::Waiting {
        return waiting_connection(event_loop);
    }
    let (listener, addr) = listener();
    let connecting = TcpStream::start_connect(addr).expect("start_connect");
    if stage > Stage::Waiting {
        event_loop.register_connecting(&connecting, 1);
    }
    if stage == Stage::EventTaken {
        event_loop.expect(&[1]);
    }
    (listener, connecting, Vec::new())
}

/// Returns a listener, and its client unless it waits for one.
pub fn listener_in(
    stage: Stage,
    event_loop: &mut Loop,
) -> (minimio::TcpListener, Option<net::TcpStream>) {
    let (listener, addr) = listener();
    let has_client = stage != Stage::Waiting;
    let client = has_client.then(|| net::TcpStream::connect(addr).expect("connect"));
    if stage >= Stage::Waiting {
        event_loop.register_listener(&listener, 1);
    }
    if stage == Stage::EventTaken {
        event_loop.expect(&[1]);
    }
    (listener, client)
}

/// Runs a job that might never return. If it does not return in time, the test fails and leaves the thread behind.
#[track_caller]
pub fn within_patience<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || sender.send(job()));
    let result = receiver.recv_timeout(PATIENCE);
    if let Err(mpsc::RecvTimeoutError::Timeout) = result {
        panic!("not done after {PATIENCE:?}");
    }
    // The job is done. After this, what the system keeps for a thread is gone too.
    match (result, thread.join()) {
        (Ok(result), _) => result,
        (_, Err(panic)) => std::panic::resume_unwind(panic),
        _ => unreachable!("the job has sent its result, or panicked"),
    }
}
