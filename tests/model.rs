//! Random sequences of operations, run on the library and on a model of its contract: whatever comes must be allowed by
//! the model, and whatever the model requires must come.
//!
//! `MINIMIO_MODEL_SEQUENCES` says how many (500, if it does not), `MINIMIO_MODEL_SEED` which one to run alone.

mod common;

use common::os::{limit_send_buffer, reset_when_closed};
use common::random::{Random, seeds};
use common::{DIRECTIONS, MAX_BYTES, bytes_at};
use minimio::{Connecting, Event, Events, Interests, Poll, Registrator};
use minimio::{TcpListener, TcpStream, Token};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};
use std::{mem, thread};

const STREAMS: usize = 5;
const LOOPS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Whether the send buffer is small, so that the peer often reads a large part of what is in it.
    Connect(usize, bool),
    /// With which loop's registrator, which stream, to wait for what, and which of its tokens.
    Register(usize, usize, Interests, usize),
    Read(usize, usize),
    Write(usize, usize),
    /// Writes until there is no room.
    Fill(usize),
    ShutDownWriting(usize),
    PeerWrites(usize, usize),
    PeerReads(usize, usize),
    PeerReadsAll(usize),
    PeerShutsDown(usize),
    PeerResets(usize),
    PeerLeaves(usize),
    /// Starts a connection in the place of a stream, and whether there is a listener at the address.
    StartConnect(usize, bool),
    Finish(usize),
    DropStream(usize),
    Listen,
    /// With which loop's registrator, to wait for what, and which of the listener's tokens.
    RegisterListener(usize, Interests, usize),
    ClientComes,
    /// A client leaves before it is accepted, and whether it resets the connection.
    ClientLeaves(bool),
    Accept(usize),
    DropListener,
    CloneRegistrator(usize),
    DropRegistrator(usize),
    /// Which loop, with which capacity: what comes at once.
    Poll(usize, usize),
    /// The same, until all has come that must.
    PollAll(usize, usize),
    CloseLoop(usize),
    DropPoll(usize),
    NewPoll(usize),
}

fn sequence(seed: u64) -> Vec<Op> {
    let mut random = Random::new(seed);
    let len = STREAMS + random.below(100);
    (0..len).map(|at| any_op(&mut random, at)).collect()
}

/// First all streams are connected.
fn any_op(random: &mut Random, at: usize) -> Op {
    let (stream, event_loop) = (random.below(STREAMS), random.below(8) / 7);
    let size = random.pick(&[1, 2, 10, 1000, 4095, 4096, 4097, 10_000]);
    let has_small_buffer = random.below(8) > 0;
    match random.below(130) {
        _ if at < STREAMS => Op::Connect(at, has_small_buffer),
        0..8 => Op::Connect(stream, has_small_buffer),
        8..36 => {
            let (direction, which) = (random.pick(&DIRECTIONS), random.below(4));
            Op::Register(event_loop, stream, direction, which)
        }
        36..44 => Op::PeerWrites(stream, size),
        44..53 => Op::Read(stream, size),
        53..58 => Op::Write(stream, size),
        58..64 => Op::Fill(stream),
        64..68 => Op::PeerReads(stream, 8 * size),
        68..73 => Op::PeerReadsAll(stream),
        73 => Op::ShutDownWriting(stream),
        74 => Op::PeerShutsDown(stream),
        75 => Op::PeerResets(stream),
        76 => Op::PeerLeaves(stream),
        77..80 => Op::DropStream(stream),
        80 => Op::CloneRegistrator(event_loop),
        81 => Op::DropRegistrator(event_loop),
        82..90 => Op::Poll(event_loop, 1 + random.below(64)),
        90..97 => Op::PollAll(event_loop, 1 + random.below(3)),
        97 if random.below(2) == 0 => Op::CloseLoop(event_loop),
        97 => Op::DropPoll(event_loop),
        98..100 => Op::NewPoll(event_loop),
        100..105 => Op::StartConnect(stream, random.below(4) > 0),
        105..109 => Op::Finish(stream),
        109..112 => Op::Listen,
        112..118 => {
            let (direction, which) = (DIRECTIONS[random.below(8) / 7], random.below(4));
            Op::RegisterListener(event_loop, direction, which)
        }
        118..123 => Op::ClientComes,
        123 => Op::ClientLeaves(random.below(2) == 0),
        124..129 => Op::Accept(stream),
        _ => Op::DropListener,
    }
}

/// Any number may be a token; but no two streams share one here, so that an event tells whose it is. The two directions of a
/// stream do share them.
fn token(stream: usize, which: usize) -> Token {
    [
        stream,
        usize::MAX - stream,
        1 << 31 | stream,
        (1 << 16) + stream,
    ][which]
}

/// The listener's tokens are those of a stream with this number.
const LISTENER: usize = STREAMS;

/// No source has this one.
const FENCE: Token = 1000;

/// The bytes in one direction of a connection.
#[derive(Default)]
struct Flow {
    written: usize,
    read: usize,
}

impl Flow {
    fn left(&self) -> usize {
        self.written - self.read
    }

    fn read(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.left(), "{} bytes", bytes.len());
        let is_due = bytes == bytes_at(self.read, bytes.len());
        assert!(is_due, "others than bytes {}.. came", self.read);
        self.read += bytes.len();
    }
}

#[derive(Default)]
struct Registration {
    /// The token of which an event is due.
    due: Option<Token>,
    /// There was something to read or to accept when it was made, or later; it may be gone by now. (Always true of a
    /// registration for writing: the system may make room at any time, by moving bytes to the peer's side.)
    may_come: bool,
    /// Something was written since it was made. So its event may come too late.
    may_be_late: bool,
}

impl Registration {
    fn begin(&mut self, token: Token, is_ready: bool) {
        let was_due = self.due.replace(token).is_some();
        // On some systems, what has been read since is no reason for a one-shot event not to come.
        self.may_come = is_ready || was_due && self.may_come;
        self.may_be_late &= was_due;
    }
}

/// What the model knows of every source.
trait Source {
    /// The number of the loop to which it belongs.
    fn owner(&mut self) -> &mut Option<usize>;
    /// `None`: the source does not have this direction.
    fn registration(&mut self, direction: Interests) -> Option<&mut Registration>;
    fn real(&self) -> &dyn minimio::Source;
    fn is_ready(&self, direction: Interests) -> bool;
    fn must_come(&self) -> bool;
    fn on_event(&mut self, direction: Interests);

    fn register(&mut self, event_loop: &EventLoop, direction: Interests, token: Token) {
        let Some(registrator) = event_loop.registrators.last() else {
            return;
        };
        let result = registrator.register(&self.real(), token, direction);
        let is_ready = self.is_ready(direction);
        let belongs_to_another = self.owner().is_some_and(|owner| owner != event_loop.number);
        let expected = match self.registration(direction) {
            _ if event_loop.is_closed => Err(ErrorKind::Interrupted),
            Some(registration) if !belongs_to_another => {
                registration.begin(token, is_ready);
                *self.owner() = Some(event_loop.number);
                Ok(())
            }
            _ => Err(ErrorKind::InvalidInput),
        };
        assert_eq!(result.map_err(|error| error.kind()), expected, "register");
    }

    fn is_due(&mut self, direction: Interests, token: Token) -> bool {
        let registration = self.registration(direction);
        registration.is_some_and(|registration| registration.due == Some(token))
    }
}

/// A stream, and beside it the model of it.
struct Stream {
    real: TcpStream,
    /// Until it leaves.
    peer: Option<net::TcpStream>,
    /// The number of the loop to which it belongs.
    owner: Option<usize>,
    to_read: Registration,
    to_write: Registration,
    from_peer: Flow,
    to_peer: Flow,
    /// An event has said that a write will not block, and nothing was written since.
    has_promise: bool,
    /// We send no more.
    is_shut_down: bool,
    /// The peer sends no more.
    is_ended: bool,
    is_reset: bool,
}

impl Stream {
    fn new(has_small_buffer: bool) -> Stream {
        let (near, peer) = common::std_pair();
        if has_small_buffer {
            limit_send_buffer(&near);
        }
        let real = TcpStream::from(near);
        real.set_nonblocking(true).unwrap();
        Stream::of(real, peer)
    }

    fn of(real: TcpStream, peer: net::TcpStream) -> Stream {
        peer.set_read_timeout(Some(PATIENCE_FOR_ONE)).unwrap();
        Stream {
            real,
            peer: Some(peer),
            owner: None,
            to_read: Registration::default(),
            to_write: Registration::default(),
            from_peer: Flow::default(),
            to_peer: Flow::default(),
            has_promise: false,
            is_shut_down: false,
            is_ended: false,
            is_reset: false,
        }
    }

    fn is_readable(&self) -> bool {
        self.from_peer.left() > 0 || self.is_ended || self.is_reset
    }

    /// There may be room before the peer has read everything, but nothing promises that.
    fn is_certainly_writable(&self) -> bool {
        self.to_peer.left() == 0 || self.is_shut_down || self.peer.is_none()
    }

    /// Most systems reset a connection if a peer leaves something unread, or has left when something arrives.
    fn may_be_reset(&self) -> bool {
        self.is_reset || self.peer.is_none() && self.to_peer.left() > 0
    }

    fn peer_does(&mut self, action: impl FnOnce(&mut Stream, &mut net::TcpStream)) {
        if let Some(mut peer) = self.peer.take() {
            action(self, &mut peer);
            self.peer = Some(peer);
            self.to_read.may_come |= self.is_readable();
        }
    }

    fn peer_writes(&mut self, size: usize) {
        self.peer_does(|stream, peer| {
            if !stream.is_ended {
                let bytes = bytes_at(stream.from_peer.written, size);
                peer.write_all(bytes).unwrap();
                stream.from_peer.written += size;
            }
        });
    }

    /// No more than was written, and that arrives, whatever has become of the loop.
    fn peer_reads(&mut self, size: usize) {
        self.peer_does(|stream, peer| {
            let mut buffer = vec![0; size.min(stream.to_peer.left())];
            peer.read_exact(&mut buffer).expect("what was written");
            buffer
                .chunks(MAX_BYTES)
                .for_each(|bytes| stream.to_peer.read(bytes));
        });
    }

    fn peer_shuts_down(&mut self) {
        self.peer_does(|stream, peer| {
            if !mem::replace(&mut stream.is_ended, true) {
                peer.shutdown(Shutdown::Write).unwrap();
            }
        });
    }

    fn peer_resets(&mut self) {
        if let Some(peer) = self.peer.take() {
            common::reset(peer);
            self.is_reset = true;
            self.to_read.may_come = true;
        }
    }

    fn peer_leaves(&mut self) {
        if self.peer.take().is_some() {
            self.is_ended = true;
            self.to_read.may_come = true;
        }
    }

    fn read(&mut self, size: usize) {
        let mut buffer = vec![0; size];
        let give_up = Instant::now() + PATIENCE_FOR_ONE;
        loop {
            match self.real.read(&mut buffer) {
                Ok(0) => {
                    let is_end = self.is_ended && self.from_peer.left() == 0;
                    assert!(is_end || self.may_be_reset(), "an end");
                    self.from_peer.read = self.from_peer.written;
                }
                Ok(n) => self.from_peer.read(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.is_readable() {
                        // It is on its way.
                        assert!(Instant::now() < give_up, "it does not arrive");
                        thread::yield_now();
                        continue;
                    }
                }
                Err(error) => {
                    assert!(self.may_be_reset(), "{error}");
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    self.from_peer.read = self.from_peer.written;
                }
            }
            return;
        }
    }

    /// Returns how much there was room for.
    fn write(&mut self, size: usize) -> usize {
        let has_promise = mem::take(&mut self.has_promise);
        match self.real.write(bytes_at(self.to_peer.written, size)) {
            Ok(n) => {
                assert!(!self.is_shut_down && n > 0, "{n} bytes were written");
                self.to_peer.written += n;
                self.to_write.may_be_late = true;
                n
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(!self.is_shut_down, "it would not block, but fail");
                assert!(!has_promise, "there was an event, and there is no room");
                0
            }
            Err(error) => {
                assert!(self.is_shut_down || self.may_be_reset(), "{error}");
                0
            }
        }
    }

    fn fill(&mut self) {
        while self.write(MAX_BYTES) > 0 {}
    }

    fn shut_down_writing(&mut self) {
        if self.is_shut_down {
            return;
        }
        match self.real.shutdown(Shutdown::Write) {
            Ok(()) => self.is_shut_down = true,
            Err(error) => assert!(self.may_be_reset(), "{error}"),
        }
    }

    /// Drops the stream. What it has written arrives, and then the end; unless it has left something unread, because closing
    /// may reset the connection then.
    ///
    /// The system remembers a connection for a minute, on the side that has ended it first; and with ten thousands of them
    /// it takes its time to find a free port. So the side that ends it last resets it.
    fn leave(self) {
        let (is_ended, left) = (self.is_ended, self.to_peer.left());
        let all_arrives = self.from_peer.left() == 0 && !(is_ended && left == 0);
        match &self.peer {
            Some(peer) if !is_ended => reset_when_closed(peer),
            Some(_) if all_arrives => (),
            _ => reset_when_closed(&self.real),
        }
        let Stream {
            real,
            peer,
            mut to_peer,
            ..
        } = self;
        drop(real);
        if let (Some(mut peer), true) = (peer, all_arrives) {
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest)
                .expect("what was written, and its end");
            rest.chunks(MAX_BYTES).for_each(|bytes| to_peer.read(bytes));
            assert_eq!(to_peer.left(), 0, "bytes are missing");
        }
    }
}

impl Source for Stream {
    fn owner(&mut self) -> &mut Option<usize> {
        &mut self.owner
    }

    fn registration(&mut self, direction: Interests) -> Option<&mut Registration> {
        Some(match direction.is_writable() {
            true => &mut self.to_write,
            false => &mut self.to_read,
        })
    }

    fn real(&self) -> &dyn minimio::Source {
        &self.real
    }

    fn is_ready(&self, direction: Interests) -> bool {
        direction.is_writable() || self.is_readable()
    }

    fn must_come(&self) -> bool {
        self.to_read.due.is_some() && self.is_readable()
            || self.to_write.due.is_some() && self.is_certainly_writable()
    }

    fn on_event(&mut self, direction: Interests) {
        self.has_promise |= direction.is_writable() && !self.to_write.may_be_late;
    }
}

/// A connection that is being made, and beside it the model of it.
struct Attempt {
    real: Connecting,
    owner: Option<usize>,
    to_finish: Registration,
    has_event: bool,
    /// `None`: it will be refused.
    listener: Option<net::TcpListener>,
    /// What keeps the address in use at which it is refused.
    _taken: Option<[net::TcpStream; 2]>,
}

impl Attempt {
    /// `None`: the system has refused it at once.
    fn start(has_listener: bool) -> Option<Attempt> {
        let (listener, taken, addr) = match has_listener {
            true => {
                let (listener, addr) = common::listen();
                (Some(listener), None, addr)
            }
            false => {
                let (taken, addr) = common::nobody();
                (None, Some(taken), addr)
            }
        };
        let real = match TcpStream::start_connect(addr) {
            Ok(real) => real,
            Err(error) => {
                let is_refusal = error.kind() == ErrorKind::ConnectionRefused;
                assert!(is_refusal && !has_listener, "start_connect: {error}");
                return None;
            }
        };
        Some(Attempt {
            real,
            owner: None,
            to_finish: Registration::default(),
            has_event: false,
            listener,
            _taken: taken,
        })
    }

    /// Its registration passes to the stream.
    fn finish(self) -> Option<Stream> {
        match (self.real.finish(), self.listener) {
            (Ok(real), Some(listener)) => {
                let (peer, _) = listener.accept().unwrap();
                let mut stream = Stream::of(real, peer);
                (stream.owner, stream.to_write) = (self.owner, self.to_finish);
                return Some(stream);
            }
            (Ok(real), None) => panic!("connected without a listener: {real:?}"),
            (Err(error), None) if error.kind() == ErrorKind::ConnectionRefused => (),
            (Err(error), _) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "finish");
                assert!(
                    !self.has_event,
                    "there was an event, and it is not finished"
                );
            }
        }
        None
    }

    /// Drops it, and leaves the system nothing to remember.
    fn leave(self) {
        reset_when_closed(&self.real);
    }
}

impl Source for Attempt {
    fn owner(&mut self) -> &mut Option<usize> {
        &mut self.owner
    }

    fn registration(&mut self, direction: Interests) -> Option<&mut Registration> {
        direction.is_writable().then_some(&mut self.to_finish)
    }

    fn real(&self) -> &dyn minimio::Source {
        &self.real
    }

    fn is_ready(&self, _: Interests) -> bool {
        true
    }

    fn must_come(&self) -> bool {
        self.to_finish.due.is_some()
    }

    fn on_event(&mut self, _: Interests) {
        self.has_event = true;
    }
}

/// A listener, and beside it the model of it.
struct Listener {
    real: TcpListener,
    owner: Option<usize>,
    to_accept: Registration,
    /// In the order in which they came. `None`: it has left. (Whether the system forgets it then is its own affair.)
    clients: VecDeque<(SocketAddr, Option<net::TcpStream>)>,
}

impl Listener {
    fn new() -> Listener {
        let real = TcpListener::bind("127.0.0.1:0").unwrap();
        real.set_nonblocking(true).unwrap();
        Listener {
            real,
            owner: None,
            to_accept: Registration::default(),
            clients: VecDeque::new(),
        }
    }

    fn has_client(&self) -> bool {
        self.clients.iter().any(|(_, client)| client.is_some())
    }

    fn client_comes(&mut self) {
        let client = net::TcpStream::connect(self.real.local_addr().unwrap()).unwrap();
        let addr = client.local_addr().unwrap();
        self.clients.push_back((addr, Some(client)));
        self.to_accept.may_come = true;
    }

    fn client_leaves(&mut self, resets: bool) {
        let mut clients = self.clients.iter_mut();
        let client = clients.find_map(|(_, client)| client.take());
        if let (Some(client), true) = (client, resets) {
            common::reset(client);
        }
    }

    fn accept(&mut self) -> Option<Stream> {
        let give_up = Instant::now() + PATIENCE_FOR_ONE;
        loop {
            match self.real.accept() {
                Ok((stream, addr)) => return self.accepted(stream, addr),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "accept"),
            }
            if !self.has_client() {
                self.clients.clear();
                return None;
            }
            // It is on its way.
            assert!(Instant::now() < give_up, "it does not arrive");
            thread::yield_now();
        }
    }

    /// Returns no stream if the client has left.
    fn accepted(&mut self, real: TcpStream, addr: SocketAddr) -> Option<Stream> {
        let mut clients = self.clients.iter();
        let at = clients.rposition(|(client, _)| *client == addr);
        let mut passed = self.clients.drain(..=at.expect("one of the clients"));
        let (_, client) = passed.next_back()?;
        assert!(passed.all(|(_, it)| it.is_none()), "one was passed over");
        real.set_nonblocking(true).unwrap();
        client.map(|client| Stream::of(real, client))
    }

    /// Drops it, and leaves the system nothing to remember of its clients.
    fn leave(self) {
        let clients = self.clients.iter().filter_map(|(_, it)| it.as_ref());
        clients.for_each(reset_when_closed);
    }
}

impl Source for Listener {
    fn owner(&mut self) -> &mut Option<usize> {
        &mut self.owner
    }

    fn registration(&mut self, direction: Interests) -> Option<&mut Registration> {
        direction.is_readable().then_some(&mut self.to_accept)
    }

    fn real(&self) -> &dyn minimio::Source {
        &self.real
    }

    fn is_ready(&self, _: Interests) -> bool {
        !self.clients.is_empty()
    }

    fn must_come(&self) -> bool {
        self.to_accept.due.is_some() && self.has_client()
    }

    fn on_event(&mut self, _: Interests) {}
}

/// A loop, and beside it the model of it.
struct EventLoop {
    number: usize,
    poll: Option<Poll>,
    registrators: Vec<Registrator>,
    is_closed: bool,
    /// By their capacity, each used again and again.
    events: HashMap<usize, Events>,
    /// Readable all the time, and writable.
    fence: Stream,
}

impl EventLoop {
    fn new(number: usize) -> EventLoop {
        let poll = Poll::new().unwrap();
        let mut fence = Stream::new(false);
        fence.peer_writes(1);
        common::wait_for_data(&fence.real);
        EventLoop {
            number,
            registrators: vec![poll.registrator()],
            poll: Some(poll),
            is_closed: false,
            events: HashMap::new(),
            fence,
        }
    }

    fn close(&mut self) {
        let Some(registrator) = self.registrators.last() else {
            return;
        };
        let result = registrator.close_loop().map_err(|error| error.kind());
        match mem::replace(&mut self.is_closed, true) {
            true => assert_eq!(result, Err(ErrorKind::Interrupted), "close_loop"),
            false => assert_eq!(result, Ok(()), "close_loop"),
        }
    }

    /// Returns how often `FENCE` was among what came: as often as it can, if nothing will ever come.
    fn poll(&mut self, sources: &mut Sources, capacity: usize, timeout: Duration) -> usize {
        let Some(poll) = &mut self.poll else {
            return DIRECTIONS.len();
        };
        let events = self.events.entry(capacity);
        let events = events.or_insert_with(|| Events::with_capacity(capacity));
        let began = Instant::now();
        let result = poll.poll(events, Some(timeout.as_millis() as i32));
        if self.is_closed {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted, "poll");
            assert!(
                began.elapsed() < PATIENCE_FOR_ONE,
                "a closed loop has slept"
            );
            assert!(events.is_empty());
            return DIRECTIONS.len();
        }
        let n = result.unwrap();
        assert_eq!(n, events.len());
        assert!(n <= capacity, "{n} events");
        assert!(n > 0 || timeout.is_zero(), "no event comes");
        for event in events.iter().filter(|event| event.id() != FENCE) {
            sources.on_event(self.number, event);
        }
        events.iter().filter(|event| event.id() == FENCE).count()
    }

    /// All that must come; and then what was ready all the time comes next, and nothing but that.
    fn poll_all(&mut self, sources: &mut Sources, capacity: usize) {
        while self.poll.is_some() && !self.is_closed && sources.must_come(self.number) {
            self.poll(sources, capacity, PATIENCE_FOR_ONE);
        }
        for direction in DIRECTIONS {
            if let Some(poll) = &self.poll {
                let registrator = poll.registrator();
                let _ = registrator.register(&self.fence.real, FENCE, direction);
            }
        }
        let mut fences = 0;
        while fences < DIRECTIONS.len() {
            fences += self.poll(sources, capacity, PATIENCE_FOR_ONE);
        }
    }
}

/// All that can be registered. In each place there is a stream or a connection that may become one.
#[derive(Default)]
struct Sources {
    streams: [Option<Stream>; STREAMS],
    attempts: [Option<Attempt>; STREAMS],
    listener: Option<Listener>,
}

impl Sources {
    fn all(&mut self) -> impl Iterator<Item = &mut dyn Source> {
        let streams = self.streams.iter_mut().flatten().map(|it| it as _);
        let attempts = self.attempts.iter_mut().flatten().map(|it| it as _);
        let listener = self.listener.iter_mut().map(|it| it as _);
        streams.chain(attempts).chain(listener)
    }

    fn of_loop(&mut self, number: usize) -> impl Iterator<Item = &mut dyn Source> {
        self.all()
            .filter_map(move |it| (*it.owner() == Some(number)).then_some(it))
    }

    fn must_come(&mut self, number: usize) -> bool {
        self.of_loop(number).any(|it| it.must_come())
    }

    fn on_event(&mut self, number: usize, event: &Event) {
        assert_ne!(event.is_readable(), event.is_writable());
        let direction = DIRECTIONS[usize::from(event.is_writable())];
        let mut due = self
            .of_loop(number)
            .filter_map(|it| it.is_due(direction, event.id()).then_some(it));
        let source = due.next();
        let source = source.unwrap_or_else(|| panic!("it answers no registration: {event:?}"));
        let registration = source.registration(direction).unwrap();
        registration.due = None;
        assert!(
            registration.may_come,
            "there is nothing to read or to accept"
        );
        source.on_event(direction);
    }

    fn replace(&mut self, at: usize, stream: Option<Stream>) {
        let old = mem::replace(&mut self.streams[at], stream);
        old.into_iter().for_each(Stream::leave);
        self.attempts[at]
            .take()
            .into_iter()
            .for_each(Attempt::leave);
    }

    fn start_connect(&mut self, at: usize, has_listener: bool) {
        self.replace(at, None);
        self.attempts[at] = Attempt::start(has_listener);
    }

    fn finish(&mut self, at: usize) {
        if let Some(attempt) = self.attempts[at].take() {
            self.streams[at] = attempt.finish();
        }
    }

    fn accept(&mut self, at: usize) {
        if let Some(stream) = self.listener.as_mut().and_then(Listener::accept) {
            self.replace(at, Some(stream));
        }
    }

    fn replace_listener(&mut self, listener: Option<Listener>) {
        let old = mem::replace(&mut self.listener, listener);
        old.into_iter().for_each(Listener::leave);
    }
}

/// What is waited for comes in no time, if it comes.
const PATIENCE_FOR_ONE: Duration = Duration::from_secs(10);

struct World {
    sources: Sources,
    loops: [EventLoop; LOOPS],
    loops_made: usize,
}

impl World {
    fn new() -> World {
        World {
            sources: Sources::default(),
            loops: [EventLoop::new(0), EventLoop::new(1)],
            loops_made: LOOPS,
        }
    }

    /// An operation on what is not there does nothing, so that any part of a sequence is a sequence.
    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect(at, has_small_buffer) => {
                let stream = Stream::new(has_small_buffer);
                self.sources.replace(at, Some(stream));
            }
            Op::StartConnect(at, has_listener) => self.sources.start_connect(at, has_listener),
            Op::Finish(at) => self.sources.finish(at),
            Op::DropStream(at) => self.sources.replace(at, None),
            Op::Listen => self.sources.replace_listener(Some(Listener::new())),
            Op::Accept(at) => self.sources.accept(at),
            Op::DropListener => self.sources.replace_listener(None),
            Op::CloneRegistrator(at) => {
                let one_more = self.loops[at].registrators.last().cloned();
                self.loops[at].registrators.extend(one_more);
            }
            Op::DropRegistrator(at) => drop(self.loops[at].registrators.pop()),
            Op::Poll(at, capacity) => {
                self.loops[at].poll(&mut self.sources, capacity, Duration::ZERO);
            }
            Op::PollAll(at, capacity) => self.loops[at].poll_all(&mut self.sources, capacity),
            Op::CloseLoop(at) => self.loops[at].close(),
            Op::DropPoll(at) => {
                self.loops[at].poll = None;
                self.loops[at].is_closed = true;
            }
            Op::NewPoll(at) => {
                self.loops[at] = EventLoop::new(self.loops_made);
                self.loops_made += 1;
            }
            on_one => self.apply_to_one(on_one),
        }
    }

    fn apply_to_one(&mut self, op: Op) {
        let Sources {
            streams,
            attempts,
            listener,
        } = &mut self.sources;
        let mut with = |at: usize, action: &dyn Fn(&mut Stream)| {
            streams[at].iter_mut().for_each(action);
        };
        let mut with_listener =
            |action: &dyn Fn(&mut Listener)| listener.iter_mut().for_each(action);
        match op {
            Op::Register(event_loop, at, direction, which) => {
                let (event_loop, token) = (&self.loops[event_loop], token(at, which));
                with(at, &|it| it.register(event_loop, direction, token));
                let attempt = attempts[at].iter_mut();
                attempt.for_each(|it| it.register(event_loop, direction, token));
            }
            Op::RegisterListener(event_loop, direction, which) => {
                let (event_loop, token) = (&self.loops[event_loop], token(LISTENER, which));
                with_listener(&|it| it.register(event_loop, direction, token));
            }
            Op::ClientComes => with_listener(&Listener::client_comes),
            Op::ClientLeaves(resets) => with_listener(&|it| it.client_leaves(resets)),
            Op::Read(at, size) => with(at, &|it| it.read(size)),
            Op::Write(at, size) => with(at, &|it| {
                it.write(size);
            }),
            Op::Fill(at) => with(at, &Stream::fill),
            Op::ShutDownWriting(at) => with(at, &Stream::shut_down_writing),
            Op::PeerWrites(at, size) => with(at, &|it| it.peer_writes(size)),
            Op::PeerReads(at, size) => with(at, &|it| it.peer_reads(size)),
            Op::PeerReadsAll(at) => with(at, &|it| it.peer_reads(usize::MAX)),
            Op::PeerShutsDown(at) => with(at, &Stream::peer_shuts_down),
            Op::PeerResets(at) => with(at, &Stream::peer_resets),
            Op::PeerLeaves(at) => with(at, &Stream::peer_leaves),
            _ => unreachable!("{op:?}"),
        }
    }

    /// What must come comes, also when the peers have read everything; what an event has promised is true; and no byte is
    /// lost.
    fn end(mut self) {
        for reads_all in [false, true] {
            if reads_all {
                let streams = self.sources.streams.iter_mut().flatten();
                streams.for_each(|stream| stream.peer_reads(usize::MAX));
            }
            for event_loop in &mut self.loops {
                event_loop.poll_all(&mut self.sources, 64);
            }
        }
        drop(self.loops);
        while let Some(listener) = self.sources.listener.as_mut().filter(|it| it.has_client()) {
            listener.accept().into_iter().for_each(Stream::leave);
        }
        (0..STREAMS).for_each(|at| self.sources.finish(at));
        for mut stream in self.sources.streams.into_iter().flatten() {
            while stream.from_peer.left() > 0 {
                stream.read(777);
            }
            stream.write(1);
            stream.leave();
        }
    }
}

fn run(sequence: &[Op]) {
    let mut world = World::new();
    sequence.iter().for_each(|op| world.apply(*op));
    world.end();
}

fn fails(sequence: &[Op]) -> bool {
    panic::catch_unwind(AssertUnwindSafe(|| run(sequence))).is_err()
}

/// Leaves out whatever is not needed to fail.
fn shortened(mut sequence: Vec<Op>) -> Vec<Op> {
    let mut part = sequence.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < sequence.len() {
            let mut shorter = sequence.clone();
            shorter.drain(at..(at + part).min(sequence.len()));
            match fails(&shorter) {
                true => sequence = shorter,
                false => at += part,
            }
        }
        match part {
            1 => return sequence,
            _ => part = part.div_ceil(2),
        }
    }
}

#[test]
fn whatever_is_done_the_model_knows_what_comes() {
    for seed in seeds(1, "model") {
        let sequence = sequence(seed);
        if fails(&sequence) {
            let shortened = shortened(sequence);
            eprintln!(
                "MINIMIO_MODEL_SEED={seed} fails, and so does this part of it: {shortened:#?}"
            );
            run(&shortened);
            panic!("it failed, and then no more: this depends on time");
        }
    }
}
