//! A server that answers `GET /{delay_ms}/{text}` with the text, after the delay. However many clients there are, one
//! thread serves them all: its `poll` sleeps until a client connects, sends or takes something, or the next deadline
//! passes, whichever comes first.

use crate::http::{self, Response};
use minimio::{Events, Interests, Poll, Registrator, TcpListener, TcpStream, Token};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// A client whose request is not whole by then gets a 408.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing of its answer for so long is disconnected.
const TAKE_WITHIN: Duration = Duration::from_secs(10);
/// A client that has its answer and has not closed the connection by then is disconnected.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long the listener pauses after an error, unless a client leaves before.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many clients are accepted, and how often one of them is written to, before others have their turn.
const ACCEPTS_AT_ONCE: usize = 64;
const WRITES_AT_ONCE: usize = 16;

/// All other tokens are clients'.
const LISTENER: Token = Token::MAX;

pub struct Server {
    poll: Poll,
    clients: Clients,
}

impl Server {
    /// An answer has `size` bytes at least: dots follow a shorter text.
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

/// Those who are connected, and the listener for those who are not yet.
struct Clients {
    registrator: Registrator,
    listener: TcpListener,
    size: usize,
    clients: HashMap<Token, Client>,
    next_token: Token,
    /// In the order in which they pass. The listener has one while it pauses.
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

    /// Asks for an event of the listener, which has none after that until it is registered again.
    fn listen(&mut self) {
        if let Some(deadline) = self.paused_until.take() {
            self.deadlines.remove(&(deadline, LISTENER));
        }
        let readable = Interests::READABLE;
        let result = self
            .registrator
            .register(&self.listener, LISTENER, readable);
        match result {
            // Closed: the next `poll` will say so.
            Err(error) if error.kind() != ErrorKind::Interrupted => self.pause(error),
            _ => (),
        }
    }

    /// Most likely we are out of descriptors. The client waits in the system's queue, and the listener stays readable: to
    /// register it again at once would only keep the processor busy. So it pauses until a client has left.
    fn pause(&mut self, error: io::Error) {
        if !mem::replace(&mut self.has_complained, true) {
            crate::complain(&format!(
                "delayserver: cannot accept, and will try again: {error}\n"
            ));
        }
        // No client may be ours; then the descriptors of others are what there is to wait for.
        let deadline = Instant::now() + RETRY_AFTER;
        self.deadlines.insert((deadline, LISTENER));
        self.paused_until = Some(deadline);
    }

    fn put(&mut self, token: Token, client: Client) {
        self.deadlines.insert((client.deadline, token));
        self.clients.insert(token, client);
    }

    /// A client that is not put back is forgotten, with its stream, registrations and deadline.
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

    /// A client does something, and then wants an event in a direction, or none. After an error it is forgotten.
    fn turn(
        &mut self,
        token: Token,
        step: impl FnOnce(&mut Client) -> io::Result<Option<Interests>>,
    ) {
        // An event is a hint: this client may have been forgotten since.
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
    /// The end of its stream was read. The client may be gone, or it has closed only its own direction and waits for its
    /// answer: reading cannot tell which. So it stays until its answer is due.
    has_finished: bool,
}

enum Stage {
    /// So much of its request has come.
    Asking(Vec<u8>),
    /// It gets this response when its deadline passes.
    Waiting(Response),
    /// It is getting this response, as fast as it takes it. Meanwhile nothing is read.
    Taking(Response),
    /// It has its answer, and we wait until it closes the connection. If we closed first, while something it sent is
    /// still unread, the system would reset the connection, and an answer that is still on its way would be lost.
    Answered,
}

/// A step's error says that the client is gone, or is to be. Otherwise it says for which event to register the client.
impl Client {
    fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            stage: Stage::Asking(Vec::new()),
            deadline: Instant::now() + ASK_WITHIN,
            has_finished: false,
        }
    }

    /// One read for each event: what is left is reported again, and a client that sends fast does not keep the others
    /// waiting.
    fn on_readable(&mut self, size: usize) -> io::Result<Option<Interests>> {
        if let Stage::Taking(_) = self.stage {
            return Ok(None); // `on_writable` registers it when it has its answer
        }
        let mut buffer = [0; 4096];
        match (&self.stream).read(&mut buffer) {
            Ok(0) => return self.on_end(),
            Ok(n) => self.on_bytes(&buffer[..n], size),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (),
            Err(error) => return Err(error),
        }
        // Even if we need no more data: that it leaves is an event too.
        Ok(Some(Interests::READABLE))
    }

    fn on_bytes(&mut self, bytes: &[u8], size: usize) {
        // What comes after the request is read and dropped: only so do we see the client leave.
        let Stage::Asking(received) = &mut self.stage else {
            return;
        };
        received.extend_from_slice(bytes);
        if let Some((delay, response)) = http::reply(received, size) {
            self.deadline = Instant::now() + delay;
            self.stage = Stage::Waiting(response);
        }
    }

    /// The end of a stream is reported at every registration, so there is none after it.
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
                let reason = b"no whole request came within 10 seconds\n";
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
        // If there is room still, the event comes at once, after those of others.
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
