//! Threads that register, read, write and poll, all at once, in random steps, while the peers read and write. And when they
//! are done, what must hold in whatever order they met: each registration gave its event, and none gave two; every byte
//! came, and none came twice.
//!
//! For each hundred of the model's sequences, there is one of these.

mod common;

use common::os::limit_send_buffer;
use common::random::{Random, seeds};
use common::{DIRECTIONS, Loop, bytes_at, pair, readable_pair};
use minimio::{Interests, Registrator, TcpStream, Token};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;
use std::{net, thread};

const STREAMS: usize = 8;
const PHASES: usize = 4;
const STEPS: usize = 100;
const SIZES: [usize; 6] = [1, 2, 100, 1000, 4096, 5000];

/// The peers are sent so many times as much, so that now and then there is no room.
const TO_PEER: usize = 12;

/// The token that ends a phase.
const LAST: Token = usize::MAX;

/// What a stream was registered for, in one direction. No two registrations have the same token. (The two directions do use
/// the same ones.)
#[derive(Default)]
struct Asked {
    count: usize,
    due: Option<Token>,
    /// Those whose place others have taken; perhaps when their event was on its way already.
    replaced: HashSet<Token>,
}

/// The bytes in one direction. One thread writes at a time, and one reads, because otherwise their order would not be known.
#[derive(Default)]
struct Flow {
    written: Mutex<usize>,
    read: Mutex<usize>,
}

impl Flow {
    fn write(&self, mut stream: impl Write, size: usize) {
        let mut written = self.written.lock().unwrap();
        match stream.write(bytes_at(*written, size)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            result => *written += result.unwrap(),
        }
    }

    fn read(&self, mut stream: impl Read, size: usize) {
        let (mut read, mut buffer) = (self.read.lock().unwrap(), vec![0; size]);
        let n = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            result => result.unwrap(),
        };
        assert!(n > 0, "an end");
        let is_due = buffer[..n] == *bytes_at(*read, n);
        assert!(is_due, "others than bytes {read}.. came");
        *read += n;
    }

    fn left(&self) -> usize {
        let read = *self.read.lock().unwrap();
        *self.written.lock().unwrap() - read
    }
}

struct Connection {
    number: usize,
    near: TcpStream,
    far: net::TcpStream,
    to_read: Mutex<Asked>,
    to_write: Mutex<Asked>,
    from_peer: Flow,
    to_peer: Flow,
}

impl Connection {
    fn new(number: usize) -> Connection {
        let (near, far) = pair();
        near.set_nonblocking(true).unwrap();
        limit_send_buffer(&near);
        let (to_read, to_write, from_peer, to_peer) = Default::default();
        Connection {
            number,
            near,
            far,
            to_read,
            to_write,
            from_peer,
            to_peer,
        }
    }

    fn asked(&self, is_writable: bool) -> &Mutex<Asked> {
        match is_writable {
            true => &self.to_write,
            false => &self.to_read,
        }
    }

    fn register(&self, direction: Interests, registrator: &Registrator, may_replace: bool) {
        let mut asked = self.asked(direction.is_writable()).lock().unwrap();
        if asked.due.is_some() && !may_replace {
            return;
        }
        let token = self.number + STREAMS * asked.count;
        let replaced = asked.due.replace(token);
        asked.replaced.extend(replaced);
        asked.count += 1;
        registrator.register(&self.near, token, direction).unwrap();
    }

    fn event(&self, is_writable: bool, token: Token) {
        let mut asked = self.asked(is_writable).lock().unwrap();
        match asked.due == Some(token) {
            true => asked.due = None,
            false => assert!(asked.replaced.remove(&token), "{token} comes uncalled-for"),
        }
    }

    fn is_due(&self, is_writable: bool) -> bool {
        self.asked(is_writable).lock().unwrap().due.is_some()
    }

    fn read(&self, size: usize) {
        self.from_peer.read(&self.near, size);
    }

    fn write(&self, size: usize) {
        self.to_peer.write(&self.near, TO_PEER * size);
    }

    fn peer_writes(&self, size: usize) {
        self.from_peer.write(&self.far, size);
    }

    /// Reads no more than there is, because it would wait for more.
    fn peer_reads(&self, size: usize) {
        match self.to_peer.left() {
            0 => (),
            left => self.to_peer.read(&self.far, left.min(TO_PEER * size)),
        }
    }

    fn read_all(&self) {
        self.near.set_nonblocking(false).unwrap();
        while self.from_peer.left() > 0 {
            self.read(777);
        }
        self.near.set_nonblocking(true).unwrap();
    }

    fn peer_reads_all(&self) {
        while self.to_peer.left() > 0 {
            self.peer_reads(5000);
        }
    }
}

/// What a thread does again and again: with which connection, how many bytes, and in which direction.
type Action<'a> = dyn Fn(&Connection, usize, Interests) + Sync + 'a;

/// All at once, each with random steps of its own.
fn mingle(random: &mut Random, event_loop: &mut Loop, connections: &[Connection]) {
    let may_replace = random.below(2) == 1;
    let registrator = &event_loop.registrator.clone();
    let (last, _peer) = readable_pair();
    let register = |it: &Connection, _, direction| it.register(direction, registrator, may_replace);
    let actions: [&Action; 8] = [
        &register,
        &register,
        &|it, size, _| it.read(size),
        &|it, size, _| it.read(size),
        &|it, size, _| it.write(size),
        &|it, size, _| it.write(size),
        &|it, size, _| it.peer_writes(size),
        &|it, size, _| it.peer_reads(size),
    ];
    thread::scope(|threads| {
        threads.spawn(|| take_events_until_last(event_loop, connections));
        let actors = actions.map(|action| {
            let mut random = Random::new(random.below(1 << 30) as u64);
            threads.spawn(move || {
                for _ in 0..STEPS {
                    let (at, size) = (random.below(STREAMS), random.pick(&SIZES));
                    action(&connections[at], size, random.pick(&DIRECTIONS));
                }
            })
        });
        let results = actors.map(|actor| actor.join());
        registrator
            .register(&last, LAST, Interests::READABLE)
            .unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
}

/// Returns whether `LAST` was among them.
fn take_events(event_loop: &mut Loop, connections: &[Connection]) -> bool {
    event_loop.wait();
    for event in event_loop.events.iter().filter(|it| it.id() != LAST) {
        connections[event.id() % STREAMS].event(event.is_writable(), event.id());
    }
    event_loop.events.iter().any(|event| event.id() == LAST)
}

fn take_events_until_last(event_loop: &mut Loop, connections: &[Connection]) {
    while !take_events(event_loop, connections) {}
}

/// What is still due comes when there is something to read, or room to write; then nothing comes any more, and all the bytes
/// are there.
fn settle(event_loop: &mut Loop, connections: &[Connection]) {
    for connection in connections {
        if connection.is_due(false) {
            connection.peer_writes(1);
        }
        connection.peer_reads_all();
    }
    let is_due = |it: &Connection| it.is_due(false) || it.is_due(true);
    while connections.iter().any(is_due) {
        take_events(event_loop, connections);
    }
    event_loop.expect_none();
    connections.iter().for_each(Connection::read_all);
}

#[test]
fn whoever_meets_whom_each_registration_gives_one_event_and_no_byte_is_lost() {
    for seed in seeds(100, "model_threads") {
        let mut random = Random::new(seed);
        let mut event_loop = Loop::with_capacity(1 + random.below(2 * STREAMS));
        let connections: Vec<_> = (0..STREAMS).map(Connection::new).collect();
        for _ in 0..PHASES {
            mingle(&mut random, &mut event_loop, &connections);
            settle(&mut event_loop, &connections);
        }
    }
}
