//! Registrars, readers, a writer and the poller, all at once, in random steps. And when they are done, what must hold in
//! whatever order they met: each registration gave its event, and none gave two; every byte came, and none came twice.
//!
//! For each hundred of the model's sequences, there is one of these.

mod common;

use common::random::{Random, seeds};
use common::{Loop, byte_at, pair, readable_pair};
use minimio::{Interests, Registrator, TcpStream, Token};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::Mutex;
use std::{net, thread};

const STREAMS: usize = 8;
const PHASES: usize = 4;
const STEPS: usize = 100;
const SIZES: [usize; 6] = [1, 2, 100, 1000, 4096, 5000];

/// The token that ends a phase.
const LAST: Token = usize::MAX;

struct Stream {
    near: TcpStream,
    asked: Mutex<Asked>,
    received: Mutex<usize>,
}

/// What the stream was registered for. No two registrations have the same token.
#[derive(Default)]
struct Asked {
    count: usize,
    due: Option<Token>,
    /// Those whose place others have taken; perhaps when their event was on its way already.
    replaced: HashSet<Token>,
}

impl Stream {
    fn new(near: TcpStream) -> Stream {
        near.set_nonblocking(true).unwrap();
        let (asked, received) = Default::default();
        Stream {
            near,
            asked,
            received,
        }
    }

    fn register(&self, number: usize, registrator: &Registrator, may_replace: bool) {
        let mut asked = self.asked.lock().unwrap();
        if asked.due.is_some() && !may_replace {
            return;
        }
        let token = number + STREAMS * asked.count;
        let replaced = asked.due.replace(token);
        asked.replaced.extend(replaced);
        asked.count += 1;
        registrator
            .register(&self.near, token, Interests::READABLE)
            .unwrap();
    }

    fn event(&self, token: Token) {
        let mut asked = self.asked.lock().unwrap();
        match asked.due == Some(token) {
            true => asked.due = None,
            false => assert!(asked.replaced.remove(&token), "{token} comes uncalled-for"),
        }
    }

    fn is_due(&self) -> bool {
        self.asked.lock().unwrap().due.is_some()
    }

    /// Of several readers, one reads at a time, for only so it is known what it should get.
    fn read(&self, size: usize) {
        let (mut received, mut buffer) = (self.received.lock().unwrap(), vec![0; size]);
        let n = match (&self.near).read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            result => result.unwrap(),
        };
        assert_ne!(n, 0, "the peer has not left");
        for byte in &buffer[..n] {
            assert_eq!(*byte, byte_at(*received), "byte {received}");
            *received += 1;
        }
    }

    fn read_all(&self, written: usize) {
        self.near.set_nonblocking(false).unwrap();
        while *self.received.lock().unwrap() < written {
            self.read(777);
        }
        self.near.set_nonblocking(true).unwrap();
    }
}

struct Peer {
    far: net::TcpStream,
    written: usize,
}

impl Peer {
    fn write(&mut self, size: usize) {
        let bytes: Vec<_> = (self.written..).map(byte_at).take(size).collect();
        self.far.write_all(&bytes).unwrap();
        self.written += size;
    }
}

/// Everybody at once, each with random steps of its own.
fn mingle(random: &mut Random, event_loop: &mut Loop, streams: &[Stream], peers: &mut [Peer]) {
    let may_replace = random.below(2) == 1;
    let registrator = &event_loop.registrator.clone();
    let (last, _peer) = readable_pair();
    let mut steps = || {
        let mut random = Random::new(random.below(1 << 30) as u64);
        (0..STEPS).map(move |_| (random.below(STREAMS), random.pick(&SIZES)))
    };
    thread::scope(|threads| {
        threads.spawn(|| take_events_until_last(event_loop, streams));
        let mut actors = Vec::new();
        for _ in 0..2 {
            let (registering, reading) = (steps(), steps());
            actors.push(threads.spawn(move || {
                for (at, _) in registering {
                    streams[at].register(at, registrator, may_replace);
                }
            }));
            actors.push(threads.spawn(move || {
                for (at, size) in reading {
                    streams[at].read(size);
                }
            }));
        }
        for (at, size) in steps() {
            peers[at].write(size);
        }
        let results: Vec<_> = actors.into_iter().map(|actor| actor.join()).collect();
        registrator
            .register(&last, LAST, Interests::READABLE)
            .unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
}

fn take_events_until_last(event_loop: &mut Loop, streams: &[Stream]) {
    let mut is_over = false;
    while !is_over {
        for token in event_loop.wait() {
            match token {
                LAST => is_over = true,
                _ => streams[token % STREAMS].event(token),
            }
        }
    }
}

/// What is still due comes when there is something to read; then nothing comes any more, and all the bytes are there.
fn settle(event_loop: &mut Loop, streams: &[Stream], peers: &mut [Peer]) {
    for (stream, peer) in streams.iter().zip(peers.iter_mut()) {
        if stream.is_due() {
            peer.write(1);
        }
    }
    while streams.iter().any(Stream::is_due) {
        for token in event_loop.wait() {
            streams[token % STREAMS].event(token);
        }
    }
    event_loop.expect_none();
    for (stream, peer) in streams.iter().zip(peers) {
        stream.read_all(peer.written);
    }
}

#[test]
fn whoever_meets_whom_each_registration_gives_one_event_and_no_byte_is_lost() {
    for seed in seeds(100, "model_threads") {
        let mut random = Random::new(seed);
        let mut event_loop = Loop::with_capacity(1 + random.below(STREAMS));
        let (streams, mut peers): (Vec<_>, Vec<_>) = (0..STREAMS)
            .map(|_| pair())
            .map(|(near, far)| (Stream::new(near), Peer { far, written: 0 }))
            .unzip();
        for _ in 0..PHASES {
            mingle(&mut random, &mut event_loop, &streams, &mut peers);
            settle(&mut event_loop, &streams, &mut peers);
        }
    }
}
