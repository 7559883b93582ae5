//! A server that answers `GET /{delay_ms}/{text}` with the text, after the delay. However many clients wait, one thread
//! waits for them all: its `poll` sleeps until a client says something or the next delay is over, whichever comes first.

use crate::http;
use minimio::{Events, Interests, Poll, Registrator, TcpStream, Token};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A client whose request is not whole by then gets a 408.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A client that was answered and has not closed the connection by then is closed by us.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub struct Server {
    poll: Poll,
}

impl Server {
    pub fn new() -> io::Result<Server> {
        Ok(Server { poll: Poll::new()? })
    }

    pub fn registrator(&self) -> Registrator {
        self.poll.registrator()
    }

    /// Serves until `close_loop`.
    pub fn run(mut self, listener: TcpListener) -> io::Result<()> {
        let registrator = self.registrator();
        let (sender, newcomers) = channel();
        let mut clients = Clients::new(self.registrator(), newcomers);
        // minimio tells when a *stream* can be read, and knows no listeners. So accepting has a thread of its own, that
        // may as well block: it has nothing else to do. Nothing in `std` would wake it, so it ends with the program.
        crate::spawn("accept", move || {
            accept_clients(&listener, &registrator, &sender);
        })?;
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, Some(clients.sleep_ms())) {
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(error),
            }
            clients.admit();
            for event in &events {
                clients.on_readable(event.id());
            }
            clients.on_time(Instant::now());
        }
    }
}

/// What `accept` says, depending on the system, of a client that has left the queue.
const LEFT: [ErrorKind; 2] = [ErrorKind::ConnectionAborted, ErrorKind::NotConnected];

fn accept_clients(
    listener: &TcpListener,
    registrator: &Registrator,
    newcomers: &Sender<(Token, Client)>,
) {
    let mut is_failing = false;
    for token in 0.. {
        match accept_client(listener, registrator, newcomers, token) {
            Ok(()) => is_failing = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return, // the loop is closed
            Err(error) if LEFT.contains(&error.kind()) => (),
            Err(error) => {
                // Most likely we are out of descriptors. The client waits in the system's queue, and we until one of
                // the others has gone: trying again at once would only keep the processor busy.
                if !is_failing {
                    let why = format!("delayserver: cannot accept, and will try again: {error}\n");
                    let _ = io::stderr().write_all(why.as_bytes()); // `eprintln!` panics when that fails
                }
                is_failing = true;
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn accept_client(
    listener: &TcpListener,
    registrator: &Registrator,
    newcomers: &Sender<(Token, Client)>,
    token: Token,
) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let stream = Arc::new(TcpStream::from(stream));
    // Into the channel first: where there is an event, there is a client. (Nobody receives when the loop is closed.)
    let sent = newcomers.send((token, Client::new(stream.clone())));
    sent.map_err(|_| ErrorKind::Interrupted)?;
    // A client that cannot be registered is disconnected at once.
    let result = registrator.register(&stream, token, Interests::READABLE);
    result.inspect_err(|_| drop(stream.shutdown(Shutdown::Both)))
}

/// Everybody who is connected.
struct Clients {
    registrator: Registrator,
    newcomers: Receiver<(Token, Client)>,
    clients: HashMap<Token, Client>,
    /// The same, in the order in which their time is up.
    deadlines: BTreeSet<(Instant, Token)>,
}

impl Clients {
    fn new(registrator: Registrator, newcomers: Receiver<(Token, Client)>) -> Clients {
        let (clients, deadlines) = (HashMap::new(), BTreeSet::new());
        Clients {
            registrator,
            newcomers,
            clients,
            deadlines,
        }
    }

    fn admit(&mut self) {
        while let Ok((token, client)) = self.newcomers.try_recv() {
            self.put(token, client);
        }
    }

    fn put(&mut self, token: Token, client: Client) {
        self.deadlines.insert((client.deadline, token));
        self.clients.insert(token, client);
    }

    /// A client that is not put back is forgotten, with its stream, registration and deadline.
    fn take(&mut self, token: Token) -> Option<Client> {
        let client = self.clients.remove(&token)?;
        self.deadlines.remove(&(client.deadline, token));
        Some(client)
    }

    fn on_readable(&mut self, token: Token) {
        // An event is a hint: this client may have been forgotten since.
        let Some(mut client) = self.take(token) else {
            return;
        };
        let mut result = client.on_readable();
        // Registered again even if we need no more data, because its leaving is an event too. But not after the end of
        // its stream, because the end is reported at every registration.
        if result.is_ok() && !client.has_finished {
            let stream = &client.stream;
            result = self
                .registrator
                .register(stream, token, Interests::READABLE);
        }
        if result.is_ok() {
            self.put(token, client);
        }
    }

    fn on_time(&mut self, now: Instant) {
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let Some(mut client) = self.take(token) else {
                break;
            };
            if client.on_time().is_ok() {
                self.put(token, client);
            }
        }
    }

    /// Until the next deadline. But a new client that sends nothing causes no event, and must be found before its time to ask
    /// is up: so, half of that at most.
    fn sleep_ms(&self) -> i32 {
        let next = self
            .deadlines
            .first()
            .map(|(deadline, _)| deadline.duration_since(Instant::now()));
        let sleep = next.unwrap_or(ASK_WITHIN).min(ASK_WITHIN / 2);
        sleep.as_nanos().div_ceil(1_000_000) as i32
    }
}

struct Client {
    /// Shared, for a moment, with the thread that registers it first.
    stream: Arc<TcpStream>,
    stage: Stage,
    deadline: Instant,
    /// The end of its stream was read. The client may be gone, or it has closed only its own direction and waits for its
    /// answer: reading cannot tell which. So it stays until its answer is due.
    has_finished: bool,
}

enum Stage {
    /// So much of its request has come.
    Asking(Vec<u8>),
    /// It gets this response when its time is up.
    Waiting(Vec<u8>),
    /// It has its answer, and we wait until it closes the connection. If we closed first, while something it sent is
    /// still unread, the system would reset the connection, and an answer that is still on its way would be lost.
    Answered,
}

impl Client {
    fn new(stream: Arc<TcpStream>) -> Client {
        Client {
            stream,
            stage: Stage::Asking(Vec::new()),
            deadline: Instant::now() + ASK_WITHIN,
            has_finished: false,
        }
    }

    /// One read for each event: what is left will be told again, and nobody who sends fast keeps the others waiting.
    /// An error says that the client is gone, or is to be.
    fn on_readable(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match (&*self.stream).read(&mut buffer) {
            Ok(0) => self.on_end(),
            Ok(n) => {
                self.on_bytes(&buffer[..n]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        // What comes after the request is read and dropped: only so do we see the client leave.
        let Stage::Asking(received) = &mut self.stage else {
            return;
        };
        received.extend_from_slice(bytes);
        if let Some((delay, response)) = http::reply(received) {
            self.deadline = Instant::now() + delay;
            self.stage = Stage::Waiting(response);
        }
    }

    fn on_end(&mut self) -> io::Result<()> {
        self.has_finished = true;
        match self.stage {
            Stage::Waiting(_) => Ok(()),
            Stage::Asking(_) | Stage::Answered => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn on_time(&mut self) -> io::Result<()> {
        let response = match &mut self.stage {
            Stage::Asking(received) => {
                let reason = b"no whole request came within 10 seconds\n";
                http::response(received, "408 Request Timeout", reason)
            }
            Stage::Waiting(response) => mem::take(response),
            Stage::Answered => return Err(ErrorKind::TimedOut.into()),
        };
        self.stage = Stage::Answered;
        self.deadline = Instant::now() + CLOSE_WITHIN;
        // minimio cannot wait until a stream can be *written* to. It need not, here: this is the first that we send, at
        // most some 8 KiB, and a send buffer has room for more. Where it has not, the client is given up.
        (&*self.stream).write_all(&response)?;
        self.stream.shutdown(Shutdown::Write)?;
        match self.has_finished {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }
}
