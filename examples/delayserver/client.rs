//! The book's story, from the client's side: the reactor waits for events in a thread of its own and sends their tokens
//! through a channel; the main thread registers requests, and handles the tokens in the order in which they come.
//!
//! `wait_log`, `registered_at` and `read_at` only record times, for the timeline at the end.

use crate::http;
use crate::record::{Outcome, Record, Wait, WaitLog};
use minimio::{Events, Interests, Poll, Registrator, TcpStream, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
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

        let handle = thread::Builder::new()
            .name("reactor".into())
            .spawn(move || {
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

/// Sends all requests, then waits for all answers at once. `Err` says that it could not even begin.
pub fn fetch(addr: &str, queries: &[Query], is_verbose: bool) -> io::Result<Record> {
    let started = Instant::now();
    let (evt_sender, evt_receiver) = channel();
    let reactor = Reactor::new(evt_sender, WaitLog::new(started), is_verbose)?;
    let outcomes = ask(
        addr,
        queries,
        &reactor.registrator(),
        &evt_receiver,
        started,
        is_verbose,
    );
    let waits = reactor.stop()?;
    let outcomes = outcomes?;
    Ok(Record { outcomes, waits })
}

fn ask(
    addr: &str,
    queries: &[Query],
    registrator: &Registrator,
    evt_receiver: &Receiver<Token>,
    started: Instant,
    is_verbose: bool,
) -> io::Result<Vec<Outcome>> {
    let mut requests = send_all(addr, queries, registrator, started)?;
    let mut unanswered = requests.len();
    while unanswered > 0 {
        // An error means that the reactor has ended early; `stop` will return the reason.
        let Ok(token) = evt_receiver.recv() else {
            break;
        };
        let request = &mut requests[token];
        request.read_at.push(started.elapsed());
        let before = request.received.len();
        let so_far = match request.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                request.registered_at.push(started.elapsed());
                registrator.register(&request.stream, token, Interests::READABLE)?;
                "more to come"
            }
            end => {
                request.end = Some(end);
                unanswered -= 1;
                "done"
            }
        };
        if is_verbose {
            let Query { delay_ms, text } = &queries[token];
            let bytes = request.received.len() - before;
            let line = format!("Event {token}: {bytes} bytes for /{delay_ms}/{text}, {so_far}\n");
            let _ = io::stdout().write_all(line.as_bytes());
        }
    }
    Ok(requests.into_iter().map(Request::into_outcome).collect())
}

fn send_all(
    addr: &str,
    queries: &[Query],
    registrator: &Registrator,
    started: Instant,
) -> io::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (token, query) in queries.iter().enumerate() {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(&http::request(addr, query.delay_ms, &query.text))?;
        stream.set_nonblocking(true)?;
        // Before the call, because the event may come before it returns.
        let registered_at = vec![started.elapsed()];
        registrator.register(&stream, token, Interests::READABLE)?;
        requests.push(Request {
            stream,
            registered_at,
            read_at: Vec::new(),
            received: Vec::new(),
            end: None,
        });
    }
    Ok(requests)
}

struct Request {
    stream: TcpStream,
    registered_at: Vec<Duration>,
    read_at: Vec<Duration>,
    received: Vec<u8>,
    end: Option<io::Result<()>>,
}

impl Request {
    /// Reads until the end of the stream, or until there is no more for the moment: `WouldBlock`, and what has come so
    /// far is kept.
    fn read(&mut self) -> io::Result<()> {
        let room = MAX_ANSWER + 1 - self.received.len();
        let mut stream = (&self.stream).take(room as u64);
        stream.read_to_end(&mut self.received)?;
        match self.received.len() {
            ..=MAX_ANSWER => Ok(()),
            _ => Err(io::Error::other("the answer is too long")),
        }
    }

    fn into_outcome(self) -> Outcome {
        let answer = match (self.end, http::parse_response(&self.received)) {
            (Some(Ok(())), Some(("200 OK", body))) => Ok(String::from_utf8_lossy(body).into()),
            (Some(Ok(())), Some((status, body))) => Err(format!(
                "{status}: {}",
                String::from_utf8_lossy(body).trim_end()
            )),
            (Some(Err(error)), _) => Err(error.to_string()),
            _ => Err("the connection was closed before the answer was whole".into()),
        };
        Outcome {
            registered_at: self.registered_at,
            read_at: self.read_at,
            answer,
        }
    }
}
