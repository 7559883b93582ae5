//! The book's story, from the client's side: the reactor waits for events in a thread of its own and sends their tokens
//! through a channel; the main thread registers requests, and handles the tokens in the order in which they come.
//!
//! `wait_log`, `registered_at`, `read_at` and `ended_at` only record times, for the timeline at the end.

use crate::http;
use crate::record::{Outcome, Record, Wait, WaitLog};
use minimio::{Events, Interests, Poll, Registrator, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{self, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
                    // Not `println!`, which panics when nobody reads our output any more (`| head`).
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
                        break; // nobody listens any more, and the loop will be closed soon
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
            // Closed already: then the thread's result says more.
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

pub struct Query {
    pub delay_ms: u32,
    pub text: String,
}

/// Sends all requests, then waits for all answers at once. An error of one request is the outcome of that request, and
/// the others go on; `Err` is for what ends them all. An answer may come `timeout` later than its delay.
pub fn fetch(
    addr: &str,
    queries: &[Query],
    timeout: Duration,
    is_verbose: bool,
) -> Result<Record, String> {
    let addrs = crate::resolve(addr)?;
    let started = Instant::now();
    let (evt_sender, evt_receiver) = channel();
    let reactor = Reactor::new(evt_sender, WaitLog::new(started), is_verbose)
        .map_err(|error| error.to_string())?;
    let client = Client {
        addr,
        addrs,
        queries,
        timeout,
        registrator: reactor.registrator(),
        started,
        is_verbose,
    };
    let outcomes = client.ask(&evt_receiver);
    let waits = reactor
        .stop()
        .map_err(|error| format!("the reactor failed: {error}"))?;
    // With a wrong address every request fails in the same way: say it once.
    let was_sent = |outcome: &Outcome| !outcome.registered_at.is_empty();
    match outcomes.first().map(|first| &first.answer) {
        Some(Err(why)) if !outcomes.iter().any(was_sent) => Err(format!("{addr}: {why}")),
        _ => Ok(Record { outcomes, waits }),
    }
}

struct Client<'a> {
    addr: &'a str,
    addrs: Vec<SocketAddr>,
    queries: &'a [Query],
    timeout: Duration,
    registrator: Registrator,
    started: Instant,
    is_verbose: bool,
}

struct Request {
    /// `None` as soon as its outcome is known.
    stream: Option<TcpStream>,
    deadline: Instant,
    received: Vec<u8>,
    outcome: Outcome,
}

impl Client<'_> {
    fn ask(&self, evt_receiver: &Receiver<Token>) -> Vec<Outcome> {
        let tokens = 0..self.queries.len();
        let mut requests: Vec<Request> = tokens.map(|token| self.send(token)).collect();
        while let Some(deadline) = next_deadline(&requests) {
            let patience = deadline.saturating_duration_since(Instant::now());
            match evt_receiver.recv_timeout(patience) {
                Ok(token) => self.on_event(token, &mut requests[token]),
                Err(RecvTimeoutError::Timeout) => self.on_time(&mut requests, deadline),
                // The reactor has ended early; `stop` will return the reason.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        requests
            .into_iter()
            .map(|request| request.outcome)
            .collect()
    }

    fn send(&self, token: Token) -> Request {
        let query = &self.queries[token];
        let result = self.connect_and_write(query);
        let delay = Duration::from_millis(query.delay_ms.into());
        let mut request = Request {
            stream: None,
            deadline: Instant::now() + delay + self.timeout,
            received: Vec::new(),
            outcome: Outcome {
                registered_at: Vec::new(),
                read_at: Vec::new(),
                ended_at: Duration::ZERO,
                answer: Err("the reactor ended before the answer came".into()),
            },
        };
        match result {
            Ok(stream) => self.register(token, &mut request, stream),
            Err(error) => self.end(&mut request, Err(error.to_string())),
        }
        request
    }

    fn connect_and_write(&self, query: &Query) -> io::Result<TcpStream> {
        let mut stream = connect(&self.addrs, self.timeout)?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.write_all(&http::request(self.addr, query.delay_ms, &query.text))?;
        let stream = TcpStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn register(&self, token: Token, request: &mut Request, stream: TcpStream) {
        // Before the call, because the event may come before it returns.
        request.outcome.registered_at.push(self.started.elapsed());
        match self
            .registrator
            .register(&stream, token, Interests::READABLE)
        {
            Ok(()) => request.stream = Some(stream),
            Err(error) => self.end(request, Err(error.to_string())),
        }
    }

    fn on_event(&self, token: Token, request: &mut Request) {
        // An event is a hint: the request may have been given up in the meantime.
        let Some(stream) = request.stream.take() else {
            return;
        };
        request.outcome.read_at.push(self.started.elapsed());
        let before = request.received.len();
        let so_far = match read(&stream, &mut request.received) {
            None => {
                self.register(token, request, stream);
                "more to come"
            }
            Some(answer) => {
                self.end(request, answer);
                "done"
            }
        };
        if self.is_verbose {
            let Query { delay_ms, text } = &self.queries[token];
            let bytes = request.received.len() - before;
            let line = format!("Event {token}: {bytes} bytes for /{delay_ms}/{text}, {so_far}\n");
            let _ = io::stdout().write_all(line.as_bytes());
        }
    }

    fn on_time(&self, requests: &mut [Request], now: Instant) {
        for (request, query) in requests.iter_mut().zip(self.queries) {
            if request.stream.is_some() && request.deadline <= now {
                let ms = u128::from(query.delay_ms) + self.timeout.as_millis();
                self.end(request, Err(format!("no whole answer came within {ms} ms")));
            }
        }
    }

    /// Also closes the connection, by dropping its stream.
    fn end(&self, request: &mut Request, answer: Result<String, String>) {
        request.stream = None;
        request.outcome.ended_at = self.started.elapsed();
        request.outcome.answer = answer;
    }
}

fn next_deadline(requests: &[Request]) -> Option<Instant> {
    let waiting = requests.iter().filter(|request| request.stream.is_some());
    waiting.map(|request| request.deadline).min()
}

/// Connects to the first address that accepts. Each may take `timeout`; `TcpStream::connect` leaves that to the system,
/// which may take minutes.
fn connect(addrs: &[SocketAddr], timeout: Duration) -> io::Result<net::TcpStream> {
    let mut result = Err(ErrorKind::AddrNotAvailable.into());
    for addr in addrs {
        result = net::TcpStream::connect_timeout(addr, timeout);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Reads what has come so far. Returns `None` if the answer is not whole yet.
fn read(stream: &TcpStream, received: &mut Vec<u8>) -> Option<Result<String, String>> {
    let room = MAX_ANSWER + 1 - received.len();
    let result = match stream.take(room as u64).read_to_end(received) {
        Ok(_) if received.len() > MAX_ANSWER => Err(io::Error::other("the answer is too long")),
        result => result,
    };
    match (http::parse_response(received, result.is_ok()), result) {
        (Ok(Some(response)), _) => Some(text(response)),
        (Err(why), _) => Some(Err(why.into())),
        (Ok(None), Ok(_)) => Some(Err(
            "the connection was closed before the answer was whole".into()
        )),
        (Ok(None), Err(error)) if error.kind() == ErrorKind::WouldBlock => None,
        (Ok(None), Err(error)) => Some(Err(error.to_string())),
    }
}

fn text((status, body): http::Response) -> Result<String, String> {
    let body = String::from_utf8_lossy(body);
    match status.starts_with("200") {
        true => Ok(body.into()),
        false => Err(format!("{status}: {}", body.trim_end())),
    }
}
