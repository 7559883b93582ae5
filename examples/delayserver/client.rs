//! The client, built as in the book: the reactor waits for events on its own thread and sends their tokens through a
//! channel; the main thread registers requests, and handles the tokens in the order in which they arrive.
//!
//! `wait_log`, and the fields whose names end in `_at`, record times, for the timeline at the end.

use crate::http;
use crate::record::{Outcome, Query, Record, Wait, WaitLog};
use minimio::{Connecting, Events, Interests, Poll, Registrator, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, mem};

pub struct Reactor {
    handle: JoinHandle<io::Result<Vec<Wait>>>,
    registrator: Registrator,
}

impl Reactor {
    pub fn new(
        evt_sender: Sender<Token>,
        mut wait_log: WaitLog,
        is_verbose: bool,
    ) -> io::Result<Reactor> {
        let mut poll = Poll::new()?;
        let registrator = poll.registrator();

        let handle = crate::spawn("reactor", move || {
            let mut events = Events::with_capacity(1024);
            loop {
                if is_verbose {
                    // Not `println!`, which panics when the reader of our output has closed its pipe (`| head`).
                    let _ = writeln!(io::stdout(), "Waiting! {:?}", poll);
                }
                wait_log.wait_begins();
                match poll.poll(&mut events, Some(200)) {
                    Ok(..) => (),
                    Err(ref e) if e.kind() == ErrorKind::Interrupted => break, // the loop is closed
                    Err(e) => return Err(e),
                };
                wait_log.wait_ended(&events);
                for event in &events {
                    let event_token = event.id();
                    if evt_sender.send(event_token).is_err() {
                        // The receiver was dropped, because `fetch` has failed. The thread continues to poll until the
                        // program ends, which is soon.
                        break;
                    }
                }
            }
            Ok(wait_log.end())
        })?;

        Ok(Reactor {
            handle,
            registrator,
        })
    }

    pub fn registrator(&self) -> Registrator {
        self.registrator.clone()
    }

    /// Closes the loop, and returns the log of its waits.
    pub fn stop(self) -> io::Result<Vec<Wait>> {
        match self.registrator.close_loop() {
            // If the loop is already closed, the thread's result says why.
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => self
                .handle
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the reactor panicked"))),
        }
    }
}

/// Without a limit, a server could fill our memory.
const MAX_ANSWER: usize = 64 * 1024;

/// Connects for all requests at once, sends them, and waits for all answers at once. If a request fails, its error is
/// its outcome, and the others continue. `Err` means that no request was sent, or that the reactor has failed.
/// Resolving the name may take as long as `timeout`, and so may each attempt to connect to one of its addresses. An
/// answer may take as long as its delay plus `timeout`.
pub fn fetch(
    addr: &str,
    queries: Arc<[Query]>,
    timeout: Duration,
    is_verbose: bool,
) -> Result<Record, String> {
    let started = Instant::now();
    let (evt_sender, evt_receiver) = channel();
    let reactor = Reactor::new(evt_sender.clone(), WaitLog::new(started), is_verbose)
        .map_err(|error| error.to_string())?;
    let requests = queries.iter().map(|_| Request::new(started + timeout));
    let client = Arc::new(Client {
        addr: addr.into(),
        requests: Mutex::new(requests.collect()),
        queries,
        timeout,
        registrator: reactor.registrator(),
        started,
        is_verbose,
    });
    client
        .start(evt_sender)
        .map_err(|error| error.to_string())?;
    let outcomes = client.run(&evt_receiver);
    let waits = reactor
        .stop()
        .map_err(|error| format!("the reactor failed: {error}"))?;
    // With a wrong address, all requests fail for the same reason. Report it once.
    let was_sent = |outcome: &Outcome| !outcome.registered_at.is_empty();
    match outcomes.first().map(|first| &first.answer) {
        Some(Err(why)) if !outcomes.iter().any(was_sent) => Err(format!("{addr}: {why}")),
        _ => Ok(Record { outcomes, waits }),
    }
}

/// Shared with the thread that resolves the name, if the server was given by name.
struct Client {
    addr: String,
    queries: Arc<[Query]>,
    /// Locked while a request is registered and its stage changes. So the stage matches the event, even if the event
    /// comes before `register` has returned.
    requests: Mutex<Vec<Request>>,
    timeout: Duration,
    registrator: Registrator,
    started: Instant,
    is_verbose: bool,
}

struct Request {
    stage: Stage,
    deadline: Instant,
    received: Vec<u8>,
    outcome: Outcome,
}

enum Stage {
    /// The addresses of the server are not known yet.
    Resolving,
    /// A connection to the first of these addresses. The others are tried if it fails.
    Connecting(Connecting, Addrs),
    /// These bytes of the request are still to be sent.
    Asking(TcpStream, Vec<u8>),
    Waiting(TcpStream),
    /// The outcome is known, and the connection is closed.
    Ended,
}

type Addrs = std::vec::IntoIter<SocketAddr>;

impl Request {
    fn new(deadline: Instant) -> Request {
        Request {
            stage: Stage::Resolving,
            deadline,
            received: Vec::new(),
            outcome: Outcome::new("the reactor ended before the answer came"),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}

impl Client {
    /// A name is resolved on its own thread, because resolving may take seconds. The same thread then starts and
    /// registers the connections: a registrator works on any thread.
    fn start(self: &Arc<Self>, evt_sender: Sender<Token>) -> io::Result<()> {
        if let Ok(addr) = self.addr.parse() {
            self.connect_all(&Ok(vec![addr]), &evt_sender);
            return Ok(());
        }
        let client = self.clone();
        let job = move || client.connect_all(&crate::resolve(&client.addr), &evt_sender);
        crate::spawn("resolver", job).map(drop)
    }

    fn connect_all(&self, addrs: &Result<Vec<SocketAddr>, String>, evt_sender: &Sender<Token>) {
        for token in 0..self.queries.len() {
            let request = &mut self.requests()[token];
            match addrs {
                _ if request.has_ended() => (), // its deadline has passed
                Ok(addrs) => self.connect(token, request, addrs.clone().into_iter()),
                Err(why) => self.end(request, Err(why.clone())),
            }
            if request.has_ended() {
                let _ = evt_sender.send(token); // because no event will tell the main thread
            }
        }
    }

    fn connect(&self, token: Token, request: &mut Request, addrs: Addrs) {
        let Some(&addr) = addrs.as_slice().first() else {
            return self.end(request, Err("the name has no address".into()));
        };
        let now = self.started.elapsed();
        request.outcome.connecting_at.get_or_insert(now);
        let connecting = TcpStream::start_connect(addr).and_then(|connecting| {
            let writable = Interests::WRITABLE;
            self.registrator.register(&connecting, token, writable)?;
            Ok(connecting)
        });
        match connecting {
            Ok(connecting) => {
                request.stage = Stage::Connecting(connecting, addrs);
                request.deadline = Instant::now() + self.timeout;
            }
            Err(error) => self.connect_next(token, request, addrs, error.to_string()),
        }
    }

    fn connect_next(&self, token: Token, request: &mut Request, mut addrs: Addrs, why: String) {
        addrs.next();
        match addrs.as_slice() {
            [] => self.end(request, Err(why)),
            _ => self.connect(token, request, addrs),
        }
    }

    /// Waits for the outcomes of all requests.
    fn run(&self, evt_receiver: &Receiver<Token>) -> Vec<Outcome> {
        while let Some(deadline) = self.next_deadline() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match evt_receiver.recv_timeout(patience) {
                Ok(token) => self.on_event(token, &mut self.requests()[token]),
                Err(RecvTimeoutError::Timeout) => self.on_time(deadline),
                // The reactor has ended early; `stop` will return the reason.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let requests = mem::take(&mut *self.requests());
        let outcomes = requests.into_iter().map(|request| request.outcome);
        outcomes.collect()
    }

    /// An event is a hint: the request may have ended, or be at another stage, in the meantime.
    fn on_event(&self, token: Token, request: &mut Request) {
        match mem::replace(&mut request.stage, Stage::Ended) {
            Stage::Connecting(connecting, addrs) => {
                self.on_connected(token, request, connecting.finish(), addrs)
            }
            Stage::Asking(stream, unsent) => self.ask(token, request, stream, unsent),
            Stage::Waiting(stream) => self.read(token, request, stream),
            stage => request.stage = stage,
        }
    }

    fn on_connected(
        &self,
        token: Token,
        request: &mut Request,
        result: io::Result<TcpStream>,
        addrs: Addrs,
    ) {
        match result {
            Ok(stream) => {
                let Query { delay_ms, text } = &self.queries[token];
                let now = self.started.elapsed();
                request.outcome.connected_at = Some(now);
                request.deadline =
                    Instant::now() + self.timeout + Duration::from_millis((*delay_ms).into());
                self.say(
                    token,
                    format_args!("connected, asks for /{delay_ms}/{text}"),
                );
                let unsent = http::request(&self.addr, *delay_ms, text);
                self.ask(token, request, stream, unsent);
            }
            // The event belongs to an earlier attempt, which has timed out.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.connect(token, request, addrs)
            }
            Err(error) => self.connect_next(token, request, addrs, error.to_string()),
        }
    }

    /// Sends as much of the request as there is room for. When everything is sent, waits for the answer.
    fn ask(&self, token: Token, request: &mut Request, stream: TcpStream, mut unsent: Vec<u8>) {
        while !unsent.is_empty() {
            match (&stream).write(&unsent) {
                Ok(n) => drop(unsent.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let writable = Interests::WRITABLE;
                    match self.registrator.register(&stream, token, writable) {
                        Ok(()) => request.stage = Stage::Asking(stream, unsent),
                        Err(error) => self.end(request, Err(error.to_string())),
                    }
                    return;
                }
                Err(error) => return self.end(request, Err(error.to_string())),
            }
        }
        self.wait(token, request, stream);
    }

    fn wait(&self, token: Token, request: &mut Request, stream: TcpStream) {
        // Recorded before the call, because the event may come before the call returns.
        request.outcome.registered_at.push(self.started.elapsed());
        match self
            .registrator
            .register(&stream, token, Interests::READABLE)
        {
            Ok(()) => request.stage = Stage::Waiting(stream),
            Err(error) => self.end(request, Err(error.to_string())),
        }
    }

    fn read(&self, token: Token, request: &mut Request, stream: TcpStream) {
        request.outcome.read_at.push(self.started.elapsed());
        let before = request.received.len();
        let so_far = match read(&stream, &mut request.received) {
            None => {
                self.wait(token, request, stream);
                "more to come"
            }
            Some(answer) => {
                self.end(request, answer);
                "done"
            }
        };
        let Query { delay_ms, text } = &self.queries[token];
        let bytes = request.received.len() - before;
        let words = format!("{bytes} bytes for /{delay_ms}/{text}, {so_far}");
        self.say(token, format_args!("{words}"));
    }

    fn say(&self, token: Token, words: fmt::Arguments<'_>) {
        if self.is_verbose {
            let line = format!("Event {token}: {words}\n");
            let _ = io::stdout().write_all(line.as_bytes());
        }
    }

    fn on_time(&self, now: Instant) {
        let mut requests = self.requests();
        for (token, request) in requests.iter_mut().enumerate() {
            if request.deadline > now {
                continue;
            }
            let timeout = self.timeout.as_millis();
            let no_connection = format!("no connection came within {timeout} ms");
            match mem::replace(&mut request.stage, Stage::Ended) {
                Stage::Ended => (),
                Stage::Resolving => self.end(request, Err(no_connection)),
                Stage::Connecting(_, addrs) => {
                    self.connect_next(token, request, addrs, no_connection);
                }
                Stage::Asking(..) | Stage::Waiting(_) => {
                    let ms = u128::from(self.queries[token].delay_ms) + timeout;
                    self.end(
                        request,
                        Err(format!("no complete answer came within {ms} ms")),
                    );
                }
            }
        }
    }

    fn end(&self, request: &mut Request, answer: Result<String, String>) {
        request.stage = Stage::Ended;
        request.outcome.ended_at = self.started.elapsed();
        request.outcome.answer = answer;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let requests = self.requests();
        let open = requests.iter().filter(|request| !request.has_ended());
        open.map(|request| request.deadline).min()
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what has arrived so far. Returns `None` if the answer is not complete yet.
fn read(stream: &TcpStream, received: &mut Vec<u8>) -> Option<Result<String, String>> {
    let room = MAX_ANSWER + 1 - received.len();
    let result = match stream.take(room as u64).read_to_end(received) {
        Ok(_) if received.len() > MAX_ANSWER => Err(io::Error::other("the answer is too long")),
        result => result,
    };
    match (http::parse_response(received, result.is_ok()), result) {
        (Ok(Some(response)), _) => Some(http::text(response)),
        (Err(why), _) => Some(Err(why.into())),
        (Ok(None), Ok(_)) => Some(Err(
            "the connection was closed before the answer was complete".into(),
        )),
        (Ok(None), Err(error)) if error.kind() == ErrorKind::WouldBlock => None,
        (Ok(None), Err(error)) => Some(Err(error.to_string())),
    }
}
