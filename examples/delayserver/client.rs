//! The book's story, from the client's side: the reactor waits for events in a thread of its own and sends their tokens
//! through a channel; the main thread registers requests, and handles the tokens in the order in which they come.

use crate::http;
use crate::record::{Diary, Outcome, Record, Wait};
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
        mut diary: Diary,
        is_telling: bool,
    ) -> io::Result<Reactor> {
        let mut poll = Poll::new()?;
        let registrator = poll.registrator();

        let handle = thread::Builder::new()
            .name("reactor".into())
            .spawn(move || {
                let mut events = Events::with_capacity(1024);
                loop {
                    if is_telling {
                        // Not `println!`, which panics when nobody reads our output any more (`| head`).
                        let _ = writeln!(io::stdout(), "Waiting! {:?}", poll);
                    }
                    diary.wait_begins();
                    match poll.poll(&mut events, Some(200)) {
                        Ok(..) => (),
                        Err(ref e) if e.kind() == ErrorKind::Interrupted => break,
                        Err(e) => return Err(e),
                    };
                    diary.wait_ended(&events);
                    for event in &events {
                        let event_token = event.id();
                        if evt_sender.send(event_token).is_err() {
                            break; // nobody listens any more, and the loop will be closed soon
                        }
                    }
                }
                Ok(diary.end())
            })?;

        Ok(Reactor {
            handle,
            registrator,
        })
    }

    pub fn registrator(&self) -> Registrator {
        self.registrator.clone()
    }

    /// What remains is its diary.
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

/// A client that trusts any server with its memory would not have it for long.
const MAX_ANSWER: usize = 64 * 1024;

pub struct Wish {
    pub delay_ms: u32,
    pub text: String,
}

/// Sends all requests, then waits for all answers at once. `Err` says that it could not even begin.
pub fn fetch(addr: &str, wishes: &[Wish], is_telling: bool) -> io::Result<Record> {
    let started = Instant::now();
    let (evt_sender, evt_receiver) = channel();
    let reactor = Reactor::new(evt_sender, Diary::new(started), is_telling)?;
    let outcomes = ask(
        addr,
        wishes,
        &reactor.registrator(),
        &evt_receiver,
        started,
        is_telling,
    );
    let waits = reactor.stop()?;
    let outcomes = outcomes?;
    Ok(Record { outcomes, waits })
}

fn ask(
    addr: &str,
    wishes: &[Wish],
    registrator: &Registrator,
    evt_receiver: &Receiver<Token>,
    started: Instant,
    is_telling: bool,
) -> io::Result<Vec<Outcome>> {
    let mut requests = send(addr, wishes, registrator, started)?;
    let mut unanswered = requests.len();
    while unanswered > 0 {
        // An error says that the reactor has ended before its time; its own result will say why.
        let Ok(token) = evt_receiver.recv() else {
            break;
        };
        let request = &mut requests[token];
        request.read.push(started.elapsed());
        let before = request.received.len();
        let so_far = match request.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                request.registered.push(started.elapsed());
                registrator.register(&request.stream, token, Interests::READABLE)?;
                "more to come"
            }
            end => {
                request.end = Some(end);
                unanswered -= 1;
                "done"
            }
        };
        if is_telling {
            let Wish { delay_ms, text } = &wishes[token];
            let bytes = request.received.len() - before;
            let line = format!("Event {token}: {bytes} bytes for /{delay_ms}/{text}, {so_far}\n");
            let _ = io::stdout().write_all(line.as_bytes());
        }
    }
    Ok(requests.into_iter().map(Request::into_outcome).collect())
}

fn send(
    addr: &str,
    wishes: &[Wish],
    registrator: &Registrator,
    started: Instant,
) -> io::Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (token, wish) in wishes.iter().enumerate() {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(&http::request(addr, wish.delay_ms, &wish.text))?;
        stream.set_nonblocking(true)?;
        // When the call returns, the event may have been there.
        let registered = vec![started.elapsed()];
        registrator.register(&stream, token, Interests::READABLE)?;
        requests.push(Request {
            stream,
            registered,
            read: Vec::new(),
            received: Vec::new(),
            end: None,
        });
    }
    Ok(requests)
}

struct Request {
    stream: TcpStream,
    registered: Vec<Duration>,
    read: Vec<Duration>,
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
            registered: self.registered,
            read: self.read,
            answer,
        }
    }
}
