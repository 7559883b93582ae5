//! Events at full speed for a while, from streams that come and go, registered by four threads: none is lost, and neither
//! memory nor descriptors become more. Every second stream also sends back what it receives, when it has an event for that.
//! The connections are made and accepted in the loop, too.
//!
//! `SOAK_S` says for how many seconds (2, if it does not), `SOAK_STREAMS` how many streams (400).
//!
//! One test, because it looks at what the whole process uses.

mod common;

use common::counting::{self, Counting};
use common::os::{allow_open_handles, count_open_handles, limit_send_buffer, reset_when_closed};
use common::random::Random;
use common::{DIRECTIONS, PATIENCE, fill, within_patience};
use minimio::{Events, Interests, Poll, Registrator, TcpListener, TcpStream, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{env, mem, thread};

#[global_allocator]
static GLOBAL: Counting = Counting;

const THREADS: usize = 4;

/// One of so many events ends a connection and begins another.
const LIVES: usize = 50;

/// One of so many answers has to wait for room.
const FULL: usize = 8;

static EVENTS: AtomicUsize = AtomicUsize::new(0);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// A connection of which one byte is always under way, in one direction or the other, and so one event.
struct Connection {
    near: TcpStream,
    far: TcpStream,
    token: Token,
    sent: u8,
}

struct Worker {
    number: usize,
    registrator: Registrator,
    listener: TcpListener,
    random: Random,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    events: Receiver<Happened>,
    /// Events that came while a connection was being made.
    later: VecDeque<Happened>,
}

/// The token of an event, and whether it is one for writing.
type Happened = (Token, bool);

/// The places in the tokens of a listener and of a connection that is being made. No stream has these places.
const LISTENER: usize = 0xFFF;
const CONNECTING: usize = 0xFFE;

/// A token tells the thread, the connection's place there, and how many have been at that place before.
fn token(thread: usize, place: usize, life: usize) -> Token {
    life << 14 | place << 2 | thread
}

impl Worker {
    fn new(number: usize, registrator: Registrator, events: Receiver<Happened>) -> Worker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("set_nonblocking");
        Worker {
            number,
            registrator,
            listener,
            random: Random::new(number as u64),
            connections: Vec::new(),
            buffer: vec![0; 64 << 10],
            events,
            later: VecDeque::new(),
        }
    }

    fn connect(&mut self, place: usize, life: usize) -> Connection {
        let [to_finish, to_accept, token] =
            [CONNECTING, LISTENER, place].map(|place| token(self.number, place, life));
        let addr = self.listener.local_addr().expect("local_addr");
        let connecting = TcpStream::start_connect(addr).expect("start_connect");
        let registrator = &self.registrator;
        registrator
            .register(&connecting, to_finish, Interests::WRITABLE)
            .expect("register");
        registrator
            .register(&self.listener, to_accept, Interests::READABLE)
            .expect("register");
        self.wait_for(vec![to_finish, to_accept]);
        // The events were no empty promises, because no other thread accepts.
        let near = connecting.finish().expect("finish");
        let (far, peer) = self.listener.accept().expect("accept");
        assert_eq!(peer, near.local_addr().expect("local_addr"));
        // Otherwise the system remembers each connection for a while, and soon has no address left.
        reset_when_closed(&near);
        reset_when_closed(&far);
        limit_send_buffer(&near);
        CONNECTIONS.fetch_add(1, SeqCst);
        let sent = 0;
        Connection {
            near,
            far,
            token,
            sent,
        }
    }

    /// Waits for one event of each of these tokens, and keeps the others for later.
    fn wait_for(&mut self, mut tokens: Vec<Token>) {
        while !tokens.is_empty() {
            let event = self.next_event();
            match tokens.iter().position(|token| *token == event.0) {
                Some(at) => drop(tokens.swap_remove(at)),
                None => self.later.push_back(event),
            }
        }
    }

    fn next_event(&self) -> Happened {
        let event = self.events.recv_timeout(PATIENCE);
        event.expect("no event is lost")
    }

    fn register(&self, connection: &Connection, direction: Interests) {
        self.registrator
            .register(&connection.near, connection.token, direction)
            .expect("register");
    }

    /// Sends a byte, of which there will be an event.
    fn send(&mut self, place: usize) {
        let registers_first = self.random.below(2) == 0;
        let connection = &self.connections[place];
        let register = || self.register(connection, Interests::READABLE);
        let send = || {
            (&connection.far)
                .write_all(&[connection.sent])
                .expect("write")
        };
        match registers_first {
            true => (register(), send()),
            false => (send(), register()),
        };
    }

    /// Takes the byte. The event was no empty promise, because no other thread reads.
    fn receive(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        let mut buffer = [0; 2];
        let n = connection.near.read(&mut buffer).expect("read");
        assert_eq!((n, buffer[0]), (1, connection.sent), "what was sent");
        connection.sent = connection.sent.wrapping_add(1);
    }

    /// Waits until there is room for an answer. If there is none, the peer makes some.
    fn ask_for_room(&mut self, place: usize) {
        let is_full = self.random.below(FULL) == 0;
        let connection = &self.connections[place];
        let mut unread = match is_full {
            true => fill(&connection.near),
            false => 0,
        };
        self.register(connection, Interests::WRITABLE);
        while unread > 0 {
            let n = unread.min(self.buffer.len());
            let bytes = &mut self.buffer[..n];
            (&connection.far).read_exact(bytes).expect("what filled it");
            unread -= n;
        }
    }

    /// Sends the last byte back. The event was no empty promise, because no other thread writes.
    fn answer(&mut self, place: usize) {
        let connection = &mut self.connections[place];
        let (received, mut answer) = ([connection.sent.wrapping_sub(1)], [0]);
        connection.near.write_all(&received).expect("write");
        connection.far.read_exact(&mut answer).expect("read");
        assert_eq!(answer, received, "what was answered");
    }

    /// Ends a connection of which an event is under way, or will be when it is reset, and puts another in its place.
    fn renew(&mut self, place: usize) {
        let life = (self.connections[place].token >> 14) + 1;
        let new = self.connect(place, life);
        let old = mem::replace(&mut self.connections[place], new);
        for direction in DIRECTIONS {
            self.register(&old, direction);
        }
        let Connection { near, far, .. } = old;
        match self.random.below(2) {
            0 => drop((far, near)),
            _ => drop((near, far)),
        }
    }

    fn run(mut self, streams: usize) {
        for place in 0..streams {
            let connection = self.connect(place, 0);
            self.connections.push(connection);
            self.send(place);
        }
        let mut under_way = streams;
        while under_way > 0 {
            let event = self.later.pop_front();
            let (token, is_writable) = event.unwrap_or_else(|| self.next_event());
            let place = (token >> 2) & 0xFFF;
            if self.connections[place].token != token {
                continue; // of an earlier life
            }
            EVENTS.fetch_add(1, SeqCst);
            match is_writable {
                true => self.answer(place),
                false => self.receive(place),
            }
            match IS_OVER.load(SeqCst) {
                true => under_way -= 1,
                false => self.go_on(place, is_writable),
            }
        }
    }

    fn go_on(&mut self, place: usize, has_answered: bool) {
        if place % 2 == 0 && !has_answered {
            return self.ask_for_room(place);
        }
        if self.random.below(LIVES) == 0 {
            self.renew(place);
        }
        self.send(place);
    }
}

fn poll_and_hand_on(mut poll: Poll, senders: &[Sender<Happened>]) {
    let mut events = Events::with_capacity(256);
    loop {
        match poll.poll(&mut events, None) {
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::Interrupted => return,
            Err(error) => panic!("{error}"),
        }
        for event in &events {
            // When it is over, only events of earlier lives come, and no thread receives them.
            let _ = senders[event.id() % THREADS].send((event.id(), event.is_writable()));
        }
    }
}

/// The straight line nearest to the figures: how much it rises from the first to the last, and how far from it they are.
fn growth(figures: &[f64]) -> (f64, f64) {
    let n = figures.len() as f64;
    let mean = figures.iter().sum::<f64>() / n;
    let points: Vec<_> = (0..)
        .map(|x| x as f64 - (n - 1.0) / 2.0)
        .zip(figures.iter().map(|y| y - mean))
        .collect();
    let sum = |term: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y)| term(x, y)).sum::<f64>();
    let slope = sum(&|x, y| x * y) / sum(&|x, _| x * x);
    let noise = (sum(&|x, y| (y - slope * x).powi(2)) / n).sqrt();
    (slope * (n - 1.0), noise)
}

/// `slack`: what comes and goes, with the number of events that wait in a channel.
fn assert_flat(what: &str, figures: &[f64], slack: f64) {
    let (growth, noise) = growth(figures);
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    println!("{what}: {first} at first, {last} at last; trend {growth:+.0}, noise {noise:.0}");
    assert!(
        growth <= 4.0 * noise + slack,
        "{what} become more: {figures:?}"
    );
}

#[test]
fn it_runs_and_runs_and_nothing_grows() {
    const SAMPLES: usize = 20;
    let setting = |name, default| env::var(name).map_or(default, |value| value.parse().unwrap());
    let (seconds, streams) = (setting("SOAK_S", 2), setting("SOAK_STREAMS", 400));
    allow_open_handles(2 * streams + 200);
    let poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let poller = thread::spawn(move || poll_and_hand_on(poll, &senders));
    let worker = |(number, events)| {
        let worker = Worker::new(number, registrator.clone(), events);
        thread::spawn(move || worker.run(streams / THREADS))
    };
    let workers: Vec<_> = receivers.into_iter().enumerate().map(worker).collect();

    let is_well = || workers.iter().all(|worker| !worker.is_finished());
    while CONNECTIONS.load(SeqCst) < streams / THREADS * THREADS && is_well() {
        thread::yield_now();
    }
    let started = Instant::now();
    let (mut bytes, mut handles) = (Vec::new(), Vec::new());
    while bytes.len() < SAMPLES && is_well() {
        let next =
            started + Duration::from_secs(seconds as u64) * bytes.len() as u32 / SAMPLES as u32;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        bytes.push(counting::live_bytes_of_all_threads() as f64);
        handles.push(count_open_handles() as f64);
    }
    let (events, connections, elapsed) = (
        EVENTS.load(SeqCst),
        CONNECTIONS.load(SeqCst),
        started.elapsed(),
    );
    IS_OVER.store(true, SeqCst);
    let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
    registrator.close_loop().unwrap();
    within_patience(|| poller.join()).unwrap();
    results.into_iter().for_each(|result| result.unwrap());

    let per_second = |count: usize| count as f64 / elapsed.as_secs_f64();
    println!(
        "{streams} streams for {elapsed:.1?}: {:.0} events/s, {:.0} connections/s",
        per_second(events),
        per_second(connections)
    );
    // When what is made once, for all, is made.
    let steady = SAMPLES / 4..;
    assert_flat("bytes", &bytes[steady.clone()], 65536.0);
    assert_flat("handles", &handles[steady], 4.0 * THREADS as f64);
}
