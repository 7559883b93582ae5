//! What a trace tells, line by line, and what follows from it: the model of the page.
//!
//! It knows what the calls say, and nothing else. What no call tells is not in the state, or is called unknown.

use std::collections::{BTreeMap, HashMap};
use std::mem;

/// A key has three parts: the kind of the thing, the queue or socket that it belongs to, and what the system calls it. So
/// an entry is `entry|fd 3|fd 4 to read`. The kinds are thread, queue, entry, ready, packet, operation and socket.
pub type State = BTreeMap<String, Item>;
type Key<'a> = [&'a str; 3];

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub state: String,
    /// In milliseconds, like all times.
    pub since: f64,
    pub note: String,
}

#[derive(Default)]
pub struct Step {
    pub at: f64,
    pub took: f64,
    pub thread: String,
    /// The line, without times and thread.
    pub words: String,
    /// What the call does here.
    pub says: String,
    /// The guide's marks for this call, separated by spaces.
    pub marks: &'static str,
    /// What is different after it, and (`None`) what is gone.
    pub changes: BTreeMap<String, Option<Item>>,
}

type Said = Option<(&'static str, String)>;

/// The marks of a call that lends.
const LENT: &str = "arm token lend";

macro_rules! said {
    ($marks:expr => $($says:tt)*) => {
        Some(($marks, format!($($says)*)))
    };
}

struct Call<'a> {
    at: f64,
    took: f64,
    thread: &'a str,
    words: &'a str,
    name: &'a str,
    args: Vec<&'a str>,
    result: &'a str,
}

impl<'a> Call<'a> {
    fn parse(line: &'a str) -> Option<Call<'a>> {
        let (at, rest) = line.trim_start().split_once(" ms  ")?;
        let (thread, words) = rest.split_once("  ")?;
        let words = words.trim();
        let (words, took) = match words.rsplit_once("  (") {
            Some((words, took)) => (words, took.strip_suffix(" ms)")?),
            None => (words, "0"),
        };
        let (name, rest) = words.split_once('(')?;
        let whole = || Some((rest.strip_suffix(')')?, ""));
        let (args, result) = rest.split_once(") = ").or_else(whole)?;
        Some(Call {
            at: at.parse().ok()?,
            took: took.parse().ok()?,
            thread,
            words,
            name,
            args: args.split(", ").collect(),
            result,
        })
    }

    fn arg(&self, at: usize) -> &'a str {
        self.args.get(at).copied().unwrap_or("")
    }

    fn began(&self) -> f64 {
        self.at - self.took
    }

    /// The name of the error, if there is one. That a connection or an operation has begun, or that a timeout has
    /// expired, is no error.
    fn error(&self) -> Option<&'a str> {
        let receipt = self.result.strip_prefix("1: [EV_ERROR ");
        if let Some(error) = receipt.and_then(|rest| rest.strip_suffix(']')) {
            return (error != "0").then_some(error);
        }
        let (value, error) = self.result.split_once(' ')?;
        let is_name = error.starts_with("error ") || !error.contains(char::is_lowercase);
        let is_failure = match error {
            "EINPROGRESS" | "WSA_IO_PENDING" | "WAIT_TIMEOUT" => false,
            "WSAEWOULDBLOCK" => self.name != "connect",
            _ => is_name,
        };
        (is_failure && value.parse::<i128>().is_ok()).then_some(error)
    }

    fn is_wait(&self) -> bool {
        self.words.contains(", capacity ")
    }

    /// A shorter wait may be no more than a look.
    fn has_slept(&self) -> bool {
        self.is_wait() && self.took >= 0.05 && !self.words.contains("timeout 0 ms")
    }

    /// The events or packets that a wait has brought, and whether these are all.
    fn brought(&self) -> (Vec<&'a str>, bool) {
        let list = self.result.split_once(": [").map_or("", |(_, list)| list);
        let list = list.trim_end_matches(']');
        let shown = list.rsplit_once(", and ").map(|(shown, _)| shown);
        let brought = shown.unwrap_or(list).split(", ");
        let brought = brought.filter(|event| !event.is_empty());
        (brought.collect(), shown.is_none())
    }
}

/// The calls of each thread that are still to come, the next one last.
type Threads<'a> = BTreeMap<&'a str, Vec<&'a Call<'a>>>;

/// All steps of a trace, or `None` if no line of it is the feature's.
pub fn replay(trace: &str) -> Option<Vec<Step>> {
    let lines = trace.lines().filter(|line| !line.trim().is_empty());
    let calls: Vec<_> = lines.map(|line| (line, Call::parse(line))).collect();
    let mut threads = Threads::new();
    for call in calls.iter().rev().filter_map(|(_, call)| call.as_ref()) {
        threads.entry(call.thread).or_default().push(call);
    }
    let mut model = Model::default();
    let mut step = |(line, call): &(&str, _)| model.step(line, Option::as_ref(call), &mut threads);
    let steps = calls.iter().map(&mut step).collect();
    (!threads.is_empty()).then_some(steps)
}

/// Recognizes the backend by the first call that no other backend makes.
pub fn backend(steps: &[Step]) -> &'static str {
    let of = |step: &Step| match step.words.split('(').next()? {
        "epoll_create1" | "epoll_ctl" | "epoll_wait" => Some("epoll"),
        "kqueue" | "kevent" => Some("kqueue"),
        "CreateIoCompletionPort" | "GetQueuedCompletionStatusEx" | "WSASocketW" => Some("IOCP"),
        _ => None,
    };
    steps.iter().find_map(of).unwrap_or("unknown")
}

#[derive(Default)]
struct Model {
    state: State,
    changes: BTreeMap<String, Option<Item>>,
    /// What is gone after the next step.
    fleeting: Vec<String>,
    /// How many packets are known to have been queued, so that each has a key of its own.
    packets: usize,
    /// The bytes read and written, for each socket.
    bytes: HashMap<String, [u64; 2]>,
    /// For each queue and token, when an armed entry was last removed, or armed again. A wait that was running then may
    /// still return its event.
    abandoned: HashMap<String, f64>,
    /// Of each socket, the queue that it was first registered with.
    attached: HashMap<String, String>,
    now: f64,
}

impl Model {
    fn step(&mut self, line: &str, call: Option<&Call>, threads: &mut Threads) -> Step {
        let gone = mem::take(&mut self.fleeting);
        self.remove(gone);
        let mut step = Step::default();
        (step.words, step.says) = (line.into(), "is not a line of the feature trace".into());
        if let Some(call) = call {
            self.now = call.at;
            let said = failed(call).or_else(|| self.readiness(call));
            let said = said
                .or_else(|| self.completion(call))
                .or_else(|| self.socket(call));
            (step.marks, step.says) = said.unwrap_or(("", "does what is not known here".into()));
            (step.took, step.thread, step.words) =
                (call.took, call.thread.into(), call.words.into());
            for (thread, calls) in threads {
                self.tell_thread(thread, calls, call);
            }
        }
        (step.at, step.changes) = (self.now, mem::take(&mut self.changes));
        step
    }

    /// A line is written when its call returns. So the next line of a thread tells what the thread has been doing since
    /// its last line.
    fn tell_thread(&mut self, thread: &str, calls: &mut Vec<&Call>, call: &Call) {
        let key = ["thread", "", thread];
        if thread == call.thread {
            calls.pop();
            return self.set(key, "running", "");
        }
        match calls.last() {
            // A microsecond, because both times are rounded.
            Some(next) if next.began() + 0.001 < call.at => {
                let verb = either(next.has_slept(), "asleep in", "in");
                self.set_since(key, &format!("{verb} {}", next.name), next.began());
            }
            _ => {
                let running = self.state.get(&key.join("|"));
                if let Some(since) = running.map(|it| it.since) {
                    self.set_since(key, "between calls", since);
                }
            }
        }
    }

    fn set_since(&mut self, key: Key, state: &str, since: f64) {
        let now = mem::replace(&mut self.now, since);
        self.set(key, state, "");
        self.now = now;
    }

    fn set(&mut self, key: Key, state: &str, note: &str) {
        // A thread that has made a call runs anew.
        let is_new = |old: &Item| old.state != state || old.note != note || state == "running";
        if self.state.get(&key.join("|")).is_none_or(is_new) {
            let (state, note, since) = (state.into(), note.into(), self.now);
            let item = Item { state, since, note };
            self.state.insert(key.join("|"), item.clone());
            self.changes.insert(key.join("|"), Some(item));
        }
    }

    /// Whether there is an item with this key, and the item fulfils the condition.
    fn is(&self, key: Key, what: impl Fn(&Item) -> bool) -> bool {
        self.state.get(&key.join("|")).is_some_and(what)
    }

    /// Shows something with this step only.
    fn flash(&mut self, key: Key, state: &str, note: &str) {
        self.set(key, state, note);
        self.fleeting.push(key.join("|"));
    }

    fn remove(&mut self, keys: Vec<String>) {
        for key in keys {
            self.abandon(&key);
            self.state.remove(&key);
            self.changes.insert(key, None);
        }
    }

    fn abandon(&mut self, key: &str) {
        if let Some(entry) = self.state.get(key).filter(|it| it.state == "armed") {
            let whose = format!("{}|{}", parts(key)[1], entry.note);
            self.abandoned.insert(whose, self.now);
        }
    }

    /// The keys that begin like this, and whose items fulfil the condition.
    fn keys(&self, begin: &str, is_it: impl Fn(Key, &Item) -> bool) -> Vec<String> {
        let all = self.state.range(begin.to_string()..);
        let all = all.take_while(|(key, _)| key.starts_with(begin));
        let those = all.filter(|(key, item)| is_it(parts(key), item));
        those.map(|(key, _)| key.clone()).collect()
    }

    fn readiness(&mut self, call: &Call) -> Said {
        let (queue, last) = (call.arg(0), call.args[call.args.len() - 1]);
        let source = match call.name {
            "kevent" => call.arg(1).split_once(' ').map_or("", |(_, source)| source),
            _ => call.arg(2),
        };
        match call.name {
            "epoll_create1" | "kqueue" => self.make_queue(call.result),
            "eventfd" => {
                said!("queue" => "makes {}, with which a thread can wake the loop", call.result)
            }
            "epoll_wait" | "kevent" if call.is_wait() => self.wait(call),
            "kevent" if call.words.contains("NOTE_TRIGGER") => self.wake(queue, source),
            "write" => {
                let is_waker = |key: Key, it: &Item| key[2] == queue && it.note == "waker";
                let key = self.keys("entry|", is_waker).pop()?;
                self.wake(parts(&key)[1], queue)
            }
            "epoll_ctl" if call.arg(1) == "EPOLL_CTL_DEL" => {
                self.remove(self.keys(&format!("entry|{queue}|{source} to "), |_, _| true));
                said!("take-back" => "takes the entry of {source} out of {queue}")
            }
            "epoll_ctl" | "kevent" if last.starts_with("token") => {
                self.arm(queue, &format!("{source} {}", direction(call.words)), last)
            }
            "epoll_ctl" | "kevent" => {
                self.set(["entry", queue, source], "stays armed", last);
                said!("queue" => "adds {source} ({last}) to {queue}, and its entry stays armed after an event")
            }
            _ => None,
        }
    }

    fn make_queue(&mut self, queue: &str) -> Said {
        self.set(["queue", "", queue], "open", "");
        said!("queue" => "makes a queue, {queue}")
    }

    fn arm(&mut self, queue: &str, entry: &str, token: &str) -> Said {
        let source = source(entry);
        self.open(source);
        let key = ["entry", queue, entry];
        let before = match self.state.get(&key.join("|")) {
            None => String::new(),
            Some(it) if it.state == "armed" => format!(", which replaces {}", it.note),
            Some(it) => format!("; its entry was {} since {}", it.state, ms(it.since)),
        };
        self.abandon(&key.join("|"));
        self.set(key, "armed", token);
        let is_first = self.attached.insert(source.into(), queue.into()).is_none();
        let can = either(entry.ends_with("write"), "written to", "read");
        let marks = either(is_first, "first arm token", "arm token");
        said!(marks => "asks {queue} for one event when {source} can be {can}, with {token}{before}")
    }

    /// Nothing resets the waker: it is ready for every wait.
    fn wake(&mut self, queue: &str, waker: &str) -> Said {
        self.set(["ready", queue, waker], "stays ready", "waker");
        said!("wake" => "wakes the thread that waits in {queue}")
    }

    fn wait(&mut self, call: &Call) -> Said {
        let queue = call.arg(0);
        let (events, are_all) = call.brought();
        let names: Vec<_> = events.iter().map(|event| self.event(call, event)).collect();
        if !are_all {
            let is_armed = |_: Key, it: &Item| it.state == "armed";
            for key in self.keys(&format!("entry|{queue}|"), is_armed) {
                let token = self.state[&key].note.clone();
                self.set(parts(&key), "unknown", &token);
            }
        }
        let capacity = call.arg(1).trim_start_matches("capacity ");
        if events.len() < capacity.parse().unwrap_or(0) {
            // If this is a queue of writers, nothing is ready in it any more.
            self.remove(self.keys("ready|", |key, it| key[2] == queue && it.note == "writers"));
        }
        let (how, what) = (waited(call), list(&names));
        if !call.result.contains("token ") {
            return said!("wait" => "{how}: {what}");
        }
        let tokens = names.iter().filter(|it| it.starts_with("token")).count();
        let entries = either(
            tokens == 1,
            "The entry of the token is",
            "The entries of the tokens are",
        );
        let end = either(call.name == "kevent", "gone", "disabled");
        said!("wait" => "{how}: {what}. {entries} {end} now, because one event was asked for")
    }

    /// Returns the token of the event, with its source if that is known.
    fn event(&mut self, wait: &Call, event: &str) -> String {
        if event.ends_with(" waker") {
            return "the wake-up".into();
        }
        let queue = wait.arg(0);
        let whose = event.find("token").map_or("writers", |at| &event[at..]);
        // kqueue tells the descriptor too, epoll only the token.
        let name = match event.split(' ').collect::<Vec<_>>()[..] {
            [_, "fd", fd, ..] => format!("fd {fd} {}", direction(event)),
            _ => String::new(),
        };
        let keys = self.keys(&format!("entry|{queue}|"), |key, it| {
            let is_it = name.is_empty() || key[2] == name;
            is_it && it.note == whose && it.state != "disabled"
        });
        // Of two entries with the same token, the trace does not tell which one it was.
        let abandoned = self.abandoned.get(&format!("{queue}|{whose}"));
        let is_abandoned = abandoned.is_some_and(|&at| at > wait.began());
        let is_sure = keys.len() == 1 && !is_abandoned && !event.contains("waker or");
        for key in &keys {
            self.take(parts(key), event, is_sure);
        }
        match &keys[..] {
            [key] => format!("{whose} ({})", parts(key)[2]),
            _ => whose.into(),
        }
    }

    fn take(&mut self, key: Key, event: &str, is_sure: bool) {
        let [_, queue, entry] = key;
        let note = self.state[&key.join("|")].note.clone();
        if note == "writers" {
            return self.set(["ready", queue, entry], "ready", "writers");
        }
        self.set(key, either(is_sure, "disabled", "unknown"), &note);
        if is_sure && event.starts_with("EVFILT") {
            self.remove(vec![key.join("|")]);
        }
        let state = either(is_sure, "taken", "perhaps taken");
        self.flash(["ready", queue, entry], state, &note);
        self.has_connected(source(entry), event);
    }

    fn has_connected(&mut self, socket: &str, event: &str) {
        let key = ["socket", "", socket];
        if self.is(key, |it| it.state == "connecting") {
            let has_failed = event.contains("EPOLLERR") || event.contains("EV_EOF");
            let state = either(event.is_empty(), "connecting has ended", "connected");
            self.set(key, either(has_failed, "not connected", state), "");
        }
    }

    fn completion(&mut self, call: &Call) -> Said {
        let (what, with, result) = (call.arg(0), call.arg(1), call.result);
        let operation = call.args[call.args.len() - 1];
        match call.name {
            "CreateIoCompletionPort" if what.starts_with("socket") => {
                self.open(what);
                self.attached.insert(what.into(), with.into());
                said!("first" => "attaches {what} to {with}, where the packets of its operations will come")
            }
            "CreateIoCompletionPort" => self.make_queue(result),
            "WSARecv" if operation.starts_with("operation") => {
                let bytes = with.trim_end_matches(" lent");
                let end = self.lend(what, operation, result, &format!("receives {bytes}"));
                said!(LENT => "receives from {what} and lends the kernel {bytes} and {operation}{end}")
            }
            "NtDeviceIoControlFile" => {
                let end = self.lend(what, operation, result, "asks");
                said!(LENT => "asks when {what} is ready and lends the kernel {operation}{end}")
            }
            "GetQueuedCompletionStatusEx" => {
                let (packets, _) = call.brought();
                let names: Vec<_> = packets.iter().map(|it| self.packet(what, it)).collect();
                said!("wait" => "{}: {}", waited(call), list(&names))
            }
            "WSAGetOverlappedResult" => {
                said!("return" => "asks for the result of {operation}: {result}")
            }
            "CancelIoEx" => {
                said!("take-back" => "asks to end {operation}: until its packet comes, it stays lent")
            }
            "PostQueuedCompletionStatus" => {
                self.put_packet(what, operation, "posted");
                let marks = either(operation == "no operation", "wake", "arm");
                said!(marks => "puts a packet of {operation} into {what}")
            }
            _ => None,
        }
    }

    /// A packet will come; and if the call says that the operation has ended, it is in the port already.
    /// Returns how the sentence ends.
    fn lend(&mut self, socket: &str, operation: &str, result: &str, note: &str) -> &'static str {
        self.open(socket);
        self.remove(self.keys("operation|", |key, _| key[2] == operation));
        self.set(["operation", socket, operation], "the kernel's", note);
        let has_ended = ["0", "STATUS_SUCCESS"].contains(&result);
        if let Some(port) = self.attached.get(socket).cloned().filter(|_| has_ended) {
            self.put_packet(&port, operation, "has ended");
        }
        either(
            has_ended,
            ". It has ended at once, and a packet comes all the same",
            "",
        )
    }

    fn put_packet(&mut self, port: &str, operation: &str, note: &str) {
        self.packets += 1;
        let name = format!("{operation}|{}", self.packets);
        self.set(["packet", port, &name], "in the port", note);
    }

    /// Returns a description of the packet.
    fn packet(&mut self, port: &str, packet: &str) -> String {
        let (bytes, operation) = packet.split_once(" of ").unwrap_or(("", packet));
        let mut packets = self.keys(&format!("packet|{port}|{operation}|"), |_, _| true);
        packets.truncate(1);
        let is_posted = |key: &String| self.state[key].note == "posted";
        let is_posted = packets.first().is_some_and(is_posted);
        self.remove(packets);
        self.flash(["packet", port, operation], "taken", bytes);
        let operations = self.keys("operation|", |key, _| key[2] == operation);
        let Some(key) = operations.first().filter(|_| !is_posted) else {
            return format!("a packet of {operation}, which was posted");
        };
        let [_, socket, _] = parts(key);
        self.set(parts(key), "yours", &format!("ended with {bytes}"));
        self.has_connected(socket, "");
        if !self.is(["socket", "", socket], |_| true) {
            self.fleeting.push(key.clone());
        }
        format!("{operation} of {socket} has ended with {bytes} and is yours")
    }

    fn socket(&mut self, call: &Call) -> Said {
        let (socket, result) = (call.arg(0), call.result);
        match call.name {
            "socket" | "WSASocketW" => {
                self.make_socket(result, "new");
                said!("" => "makes a socket, {result}")
            }
            "connect" => {
                let state = either(result == "0", "connected", "connecting");
                self.set(["socket", "", socket], state, "");
                said!("" => "starts to connect {socket} to {}, and does not wait for the end", call.arg(1))
            }
            "accept" => {
                self.set(["socket", "", socket], "listens", "");
                self.make_socket(result, "connected");
                said!("" => "accepts a client of {socket}: {result}")
            }
            "recv" | "readv" | "WSARecv" => self.move_bytes(call, 0),
            "send" | "writev" | "WSASend" => self.move_bytes(call, 1),
            "close" | "closesocket" | "CloseHandle" => self.close(socket),
            "fcntl" | "setsockopt" => said!("" => "sets an option of {socket}"),
            "WSAStartup" => said!("" => "starts Winsock, {socket}"),
            _ => None,
        }
    }

    fn make_socket(&mut self, socket: &str, state: &str) {
        self.bytes.remove(socket);
        self.set(["socket", "", socket], state, "");
    }

    /// It was made by `std`, which says nothing.
    fn open(&mut self, socket: &str) {
        if !self.is(["socket", "", socket], |_| true) {
            self.make_socket(socket, "open");
        }
    }

    fn move_bytes(&mut self, call: &Call, direction: usize) -> Said {
        let (socket, result) = (call.arg(0), call.result);
        let bytes = self.bytes.entry(socket.into()).or_default();
        bytes[direction] += result.parse().unwrap_or(0);
        let note = format!("{} bytes read, {} written", bytes[0], bytes[1]);
        self.set(["socket", "", socket], "connected", &note);
        match (direction, result) {
            (0, "0") => said!("read" => "reads the end of the stream from {socket}"),
            (0, _) => said!("read" => "reads {result} bytes from {socket}"),
            _ => said!("" => "copies {result} bytes into the send buffer of {socket}"),
        }
    }

    /// Closing removes the entries of what is closed. But it only cancels operations: they stay lent until their
    /// packets are dequeued.
    fn close(&mut self, what: &str) -> Said {
        let is_in = |key: Key| key[2] == what || key[1] == what || source(key[2]) == what;
        let is_lent = |it: &Item| it.state == "the kernel's";
        let gone = self.keys("", |key, it| is_in(key) && !is_lent(it));
        let is_entry = |key: &String| key.starts_with("entry") && parts(key)[1] != what;
        let marks = either(gone.iter().any(is_entry), "take-back", "");
        self.remove(gone);
        self.attached.remove(what);
        let lent = self.keys(&format!("operation|{what}|"), |_, _| true);
        let end = either(lent.is_empty(), "", ". What it has lent stays the kernel's");
        said!(marks => "closes {what}{end}")
    }
}

fn either<'a>(is: bool, yes: &'a str, no: &'a str) -> &'a str {
    if is { yes } else { no }
}

fn parts(key: &str) -> Key<'_> {
    let mut parts = key.splitn(3, '|');
    [(); 3].map(|()| parts.next().unwrap_or(""))
}

/// `fd 4`, of `fd 4 to read`.
fn source(entry: &str) -> &str {
    entry.split(" to ").next().unwrap_or(entry)
}

fn direction(words: &str) -> &'static str {
    let is_write = words.contains("EPOLLOUT") || words.contains("EVFILT_WRITE");
    either(is_write, "to write", "to read")
}

fn failed(call: &Call) -> Said {
    let (what, error) = (call.arg(0), call.error()?);
    let would_block = ["EAGAIN", "WSAEWOULDBLOCK"].contains(&error);
    match call.name {
        "accept" if would_block => said!("" => "finds no client at {what}"),
        "send" | "writev" | "WSASend" if would_block => said!("" => "finds no room in {what}"),
        _ if would_block => said!("" => "finds nothing to read in {what}"),
        "CancelIoEx" => said!("" => "does not find {}: its packet is there", call.arg(1)),
        _ => said!("" => "fails: {error}"),
    }
}

fn waited(call: &Call) -> String {
    let is_look = call.words.contains("timeout 0 ms");
    match call.has_slept() {
        true => format!("sleeps for {}", ms(call.took)),
        false => either(is_look, "looks, without waiting", "does not have to wait").into(),
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "there is nothing".into(),
        [a, b, c, rest @ ..] if rest.len() > 1 => format!("{a}, {b}, {c}, and {} more", rest.len()),
        _ => names.join(", "),
    }
}

pub fn ms(time: f64) -> String {
    let digits = if time < 10.0 { 3 } else { 1 };
    format!("{time:.digits$} ms")
}
