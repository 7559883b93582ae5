//! A server that answers `GET /{delay_ms}/{text}` with the text, after the delay. One thread serves any number of
//! clients: its `poll` sleeps until a client connects, sends or reads something, or the next deadline passes, whichever
//! comes first.

use crate::http::{self, Response};
use minimio::{Events, Interests, Poll, Registrator, TcpListener, TcpStream, Token};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A client whose request is not complete after this time gets a 408.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A client that reads nothing of its answer for this long is disconnected.
const TAKE_WITHIN: Duration = Duration::from_secs(10);
/// A client that has its answer and does not close the connection within this time is disconnected.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long the listener pauses after an error, unless a client leaves earlier.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many clients are accepted before other clients have their turn.
const ACCEPTS_AT_ONCE: usize = 64;
/// How often a client is written to before other clients have their turn.
const WRITES_AT_ONCE: usize = 16;

/// All other tokens belong to clients.
const LISTENER: Token = Token::MAX;

pub struct Server {
    poll: Poll,
    clients: Clients,
}

impl Server {
    /// An answer has at least `size` bytes: dots follow a shorter text.
    pub fn new(listener: TcpListener, size: usize) -> io::Result<Server> {
        let poll = Poll::new()?;
        listener.set_nonblocking(true)?;
        let clients = Clients::new(poll.registrator(), listener, size);
        Ok(Server { poll, clients })
    }

    pub fn registrator(&self) -> Registrator {
        self.poll.registrator()
    }

    /// Serves until `close_loop`.
    pub fn run(self) -> io::Result<()> {
        let Server {
            mut poll,
            mut clients,
        } = self;
        let mut events = Events::with_capacity(1024);
        clients.listen();
        loop {
            match poll.poll(&mut events, clients.timeout_ms()) {
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(error),
            }
            for event in &events {
                match event.id() {
                    LISTENER => clients.accept(),
                    token => clients.on_event(token, event.is_writable()),
                }
            }
            clients.on_time(Instant::now());
        }
    }
}

/// The connected clients, and the listener that accepts new ones.
struct Clients {
    registrator: Registrator,
    listener: TcpListener,
    size: usize,
    clients: HashMap<Token, Client>,
    next_token: Token,
    /// Sorted by time. The listener has a deadline while it pauses.
    deadlines: BTreeSet<(Instant, Token)>,
    /// When the listener is registered again, if it pauses.
    paused_until: Option<Instant>,
    has_complained: bool,
}

impl Clients {
    fn new(registrator: Registrator, listener: TcpListener, size: usize) -> Clients {
        Clients {
            registrator,
            listener,
            size,
            clients: HashMap::new(),
            next_token: 0,
            deadlines: BTreeSet::new(),
            paused_until: None,
            has_complained: false,
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_AT_ONCE {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.has_complained = false;
                    break;
                }
                Err(error) => return self.pause(error),
            }
        }
        self.listen();
    }

    fn admit(&mut self, stream: TcpStream) {
        let token = self.next_token;
        let result = stream.set_nonblocking(true).and_then(|()| {
            let readable = Interests::READABLE;
            self.registrator.register(&stream, token, readable)
        });
        // A client that cannot be registered is disconnected, because `stream` is dropped.
        if result.is_ok() {
            self.next_token += 1;
            self.put(token, Client::new(stream));
        }
    }

    /// Registers the listener for one event, and ends its pause.
    fn listen(&mut self) {
        if let Some(deadline) = self.paused_until.take() {
            self.deadlines.remove(&(deadline, LISTENER));
        }
        let readable = Interests::READABLE;
        let result = self
            .registrator
            .register(&self.listener, LISTENER, readable);
        match result {
            // If the loop is closed, the next `poll` will return that error.
            Err(error) if error.kind() != ErrorKind::Interrupted => self.pause(error),
            _ => (),
        }
    }

    /// Most likely the process is out of descriptors. The client waits in the listener's queue, so the listener stays
    /// readable. Registering it again at once would only keep the processor busy. So the listener pauses until a client
    /// has left.
    fn pause(&mut self, error: io::Error) {
        if !mem::replace(&mut self.has_complained, true) {
            crate::complain(&format!(
                "delayserver: cannot accept, and will try again: {error}\n"
            ));
        }
        // If there are no clients, other parts of the system hold the descriptors. So there is a deadline, too.
        let deadline = Instant::now() + RETRY_AFTER;
        self.deadlines.insert((deadline, LISTENER));
        self.paused_until = Some(deadline);
    }

    fn put(&mut self, token: Token, client: Client) {
        self.deadlines.insert((client.deadline, token));
        self.clients.insert(token, client);
    }

    /// Removes a client and its deadline. A client that is not put back loses its stream and registrations.
    fn take(&mut self, token: Token) -> Option<Client> {
        let client = self.clients.remove(&token)?;
        self.deadlines.remove(&(client.deadline, token));
        Some(client)
    }

    fn on_event(&mut self, token: Token, is_writable: bool) {
        let size = self.size;
        self.turn(token, |client| match is_writable {
            true => client.on_writable(),
            false => client.on_readable(size),
        });
    }

    fn on_time(&mut self, now: Instant) {
        while let Some(&(deadline, token)) = self.deadlines.first() {
            match token {
                _ if deadline > now => break,
                LISTENER => self.listen(),
                token => self.turn(token, Client::on_time),
            }
        }
    }

    /// Runs one step of a client, and then registers the client for the event that the step returns. After an error the
    /// client is dropped.
    fn turn(
        &mut self,
        token: Token,
        step: impl FnOnce(&mut Client) -> io::Result<Option<Interests>>,
    ) {
        // An event is a hint: this client may have been dropped in the meantime.
        let Some(mut client) = self.take(token) else {
            return;
        };
        let result = step(&mut client).and_then(|wanted| match wanted {
            Some(interests) => self.registrator.register(&client.stream, token, interests),
            None => Ok(()),
        });
        match result {
            Ok(()) => self.put(token, client),
            Err(_) => {
                drop(client); // first, so that its descriptor is free
                if self.paused_until.is_some() {
                    self.listen();
                }
            }
        }
    }

    fn timeout_ms(&self) -> Option<i32> {
        let (deadline, _) = self.deadlines.first()?;
        let left = deadline.saturating_duration_since(Instant::now());
        Some(left.as_nanos().div_ceil(1_000_000) as i32)
    }
}

struct Client {
    stream: TcpStream,
    stage: Stage,
    deadline: Instant,
    /// The end of the client's stream was read. The client may be gone, or may have closed only its own direction and
    /// be waiting for its answer. A read cannot tell which, so the server keeps the client until its answer is due.
    has_finished: bool,
}

enum Stage {
    /// These bytes of the request have arrived.
    Asking(Vec<u8>),
    /// The client gets this response when its deadline passes.
    Waiting(Response),
    /// This part of the response is still to be sent, as fast as the client reads. The server reads nothing at this
    /// stage.
    Taking(Response),
    /// The answer is sent, and the server waits until the client closes the connection. If the server closed the
    /// connection while bytes of the client are unread, the system would reset it, and an answer that is still on its
    /// way would be lost.
    Answered,
}

/// Each step returns the event to wait for, if any, or an error if the client must be dropped.
impl Client {
    fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            stage: Stage::Asking(Vec::new()),
            deadline: Instant::now() + ASK_WITHIN,
            has_finished: false,
        }
    }

    /// Reads once for each event, so that a client that sends fast does not keep the others waiting. If data is left,
    /// there will be another event.
    fn on_readable(&mut self, size: usize) -> io::Result<Option<Interests>> {
        if let Stage::Taking(_) = self.stage {
            return Ok(None); // `on_writable` registers the client when it has its answer
        }
        let mut buffer = [0; 4096];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => return self.on_end(),
            Ok(n) => self.on_bytes(&buffer[..n], size),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
        // Wait even if the request is complete, because the end of the connection is an event too.
        Ok(Some(Interests::READABLE))
    }

    fn on_bytes(&mut self, bytes: &[u8], size: usize) {
        // Bytes beyond the request are discarded. They must be read, because the end of the stream comes after them.
        let Stage::Asking(received) = &mut self.stage else {
            return;
        };
        received.extend_from_slice(bytes);
        if let Some((delay, response)) = http::reply(received, size) {
            self.deadline = Instant::now() + delay;
            self.stage = Stage::Waiting(response);
        }
    }

    /// Every registration reports the end of the stream again, so the client is no longer registered for reading.
    fn on_end(&mut self) -> io::Result<Option<Interests>> {
        self.has_finished = true;
        match self.stage {
            Stage::Asking(_) | Stage::Answered => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(None),
        }
    }

    fn on_time(&mut self) -> io::Result<Option<Interests>> {
        let response = match mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Asking(received) => {
                let reason = b"no complete request came within 10 seconds\n";
                http::response(&received, "408 Request Timeout", reason, 0)
            }
            Stage::Waiting(response) => response,
            Stage::Taking(_) | Stage::Answered => return Err(ErrorKind::TimedOut.into()),
        };
        self.stage = Stage::Taking(response);
        self.deadline = Instant::now() + TAKE_WITHIN;
        self.on_writable()
    }

    fn on_writable(&mut self) -> io::Result<Option<Interests>> {
        let Stage::Taking(response) = &mut self.stage else {
            return Ok(None);
        };
        for _ in 0..WRITES_AT_ONCE {
            match (&self.stream).write(response.rest()) {
                Ok(n) => response.advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            self.deadline = Instant::now() + TAKE_WITHIN;
            if response.rest().is_empty() {
                return self.on_taken();
            }
        }
        // If there is still room, the event comes at once, after those of others.
        Ok(Some(Interests::WRITABLE))
    }

    fn on_taken(&mut self) -> io::Result<Option<Interests>> {
        self.stage = Stage::Answered;
        self.deadline = Instant::now() + CLOSE_WITHIN;
        self.stream.shutdown(Shutdown::Write)?;
        match self.has_finished {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(Some(Interests::READABLE)),
        }
    }
}
