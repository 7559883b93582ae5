//! The example `replay`: what it derives from a trace is what the program knew, and what cannot be known it calls unknown.
//!
//! The programs below say what they know in lines of their own between those of the feature `trace`. `tests/replay/` has
//! what the guide's program has told on each backend, so that all three are looked at on every system.

mod common;
#[path = "../examples/replay/model.rs"]
mod model;

use common::delayserver::{example, standard_error_of};
use common::{pair, wait_for_data_unless_lent};
use minimio::{Events, Interests, Poll, TcpListener, TcpStream};
use model::{State, Step, backend, replay};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{fs, thread};

const RECORDED: [(&str, &str); 3] = [
    ("epoll", include_str!("replay/epoll.trace")),
    ("kqueue", include_str!("replay/kqueue.trace")),
    ("IOCP", include_str!("replay/iocp.trace")),
];

const BACKEND: &str = if cfg!(windows) {
    "IOCP"
} else if cfg!(any(target_os = "linux", target_os = "android")) && cfg!(not(minimio_kqueue)) {
    "epoll"
} else {
    "kqueue"
};

/// On Windows, what a dropped stream has lent is the kernel's until its packet is taken.
const STILL_LENT: u8 = cfg!(windows) as u8;

macro_rules! know {
    ($($known:tt)*) => {
        eprintln!("known: {}", format_args!($($known)*))
    };
}

/// The program of the guide's chapter 4.
#[test]
fn chapter_4() -> io::Result<()> {
    let (mut stream, mut peer) = pair();
    let mut poll = Poll::new()?;
    let registrator = poll.registrator();
    know!("waiting 0, woken 0");
    registrator.register(&stream, 10, Interests::READABLE)?;
    know!("waiting 1, sockets 1");
    peer.write_all(b"hello")?;
    wait_for_data_unless_lent(&stream);

    let mut events = Events::with_capacity(1024);
    poll.poll(&mut events, None)?;
    assert_eq!(events[0].id(), 10);
    know!("waiting 0");
    let mut buffer = [0; 64];
    assert_eq!(stream.read(&mut buffer)?, 5);
    know!("waiting 0, read 5");
    registrator.register(&stream, 11, Interests::READABLE)?;
    know!("waiting 1, sockets 1");
    drop(stream);
    know!("waiting {STILL_LENT}, sockets 0");
    registrator.close_loop()?;
    know!("woken 1");
    assert!(poll.poll(&mut events, None).is_err());
    drop((poll, registrator));
    know!("waiting 0, woken 0, queues 0, sockets 0");
    Ok(())
}

#[test]
fn it_is_the_guides_program() {
    let guide = include_str!("../src/guide/ch4_life.md");
    let program = guide.split("```").nth(1).unwrap();
    let lines = program
        .lines()
        .map(|line| line.split("//").next().unwrap().trim());
    let is_code = |line: &&str| line.ends_with(';') && !line.starts_with(['#', 'u']);
    let lines: Vec<_> = lines.filter(is_code).collect();
    assert!(lines.len() > 10, "{lines:?}");
    let source = include_str!("replay.rs")
        .split_once("fn chapter_4()")
        .unwrap()
        .1;
    let mut rest = source.replace(" = pair();", " = pair()?;");
    for line in lines {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("not in this order: {line}"));
        rest.drain(..at + line.len());
    }
}

/// All directions and kinds of sources.
#[test]
fn a_connection() {
    let mut poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let mut events = Events::with_capacity(8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    registrator
        .register(&listener, 1, Interests::READABLE)
        .unwrap();
    know!("waiting 1, connecting 0");
    let connecting = TcpStream::start_connect(listener.local_addr().unwrap()).unwrap();
    know!("waiting 1, connecting 1");
    poll.poll(&mut events, None).unwrap();
    know!("waiting 0");
    let (far, _) = listener.accept().unwrap();
    know!("listening 1, sockets 3");
    registrator
        .register(&connecting, 2, Interests::WRITABLE)
        .unwrap();
    know!("waiting 1, connecting 1");
    poll.poll(&mut events, None).unwrap();
    know!("waiting 0, connecting 0");
    let mut near = connecting.finish().unwrap();
    near.write_all(b"hello").unwrap();
    know!("written 5");

    // Both directions, with one token.
    for interests in [Interests::READABLE, Interests::WRITABLE] {
        registrator.register(&near, 3, interests).unwrap();
    }
    know!("waiting 2");
    poll.poll(&mut events, None).unwrap();
    assert!(events[0].is_writable());
    know!("waiting 1");
    registrator.register(&near, 4, Interests::READABLE).unwrap();
    know!("waiting 1");
    drop((near, far));
    know!("sockets 1, waiting {STILL_LENT}");
    drop((poll, registrator, listener));
    know!("sockets 0, waiting 0");
}

const SLEEP: Duration = Duration::from_millis(300);

#[test]
fn a_sleeper() {
    let has_slept = AtomicBool::new(false);
    let (stream, _peer) = pair();
    let speak = || (&stream).write_all(b"!").unwrap();
    speak();
    know!("asleep 0");
    thread::scope(|threads| {
        let sleeper = thread::Builder::new().name("sleeper".into());
        let sleep = || {
            let mut poll = Poll::new().unwrap();
            let mut events = Events::with_capacity(8);
            let began = Instant::now();
            assert_eq!(poll.poll(&mut events, Some(300)).unwrap(), 0);
            assert!(began.elapsed() >= SLEEP);
            has_slept.store(true, SeqCst);
        };
        sleeper.spawn_scoped(threads, sleep).unwrap();
        while !has_slept.load(SeqCst) {
            speak();
            thread::sleep(SLEEP / 10);
        }
    });
    speak();
    know!("asleep 0");
}

#[test]
fn the_state_is_what_the_program_knew() {
    for program in ["chapter_4", "a_connection", "a_sleeper"] {
        let told = standard_error_of(program);
        let steps = replay(&told);
        assert_eq!(steps.is_some(), cfg!(feature = "trace"), "{told}");
        if let Some(steps) = steps {
            assert!(steps.is_sorted_by(|a, b| a.at <= b.at), "{told}");
            check(&steps, &told);
        }
    }
}

#[test]
fn what_was_recorded_is_what_the_program_knew() {
    for (name, trace) in RECORDED {
        let steps = replay(trace).unwrap();
        assert_eq!(backend(&steps), name);
        check(&steps, trace);
    }
}

/// If the new one is right, it belongs into `tests/replay/`.
#[test]
fn what_was_recorded_is_what_the_backend_does_today() {
    let told = standard_error_of("chapter_4");
    let Some(today) = replay(&told) else { return };
    // These two wake by a pipe, and the recorded one is of a system that needs none.
    if cfg!(any(target_os = "netbsd", target_os = "openbsd")) {
        return;
    }
    let (_, recorded) = RECORDED.iter().find(|it| it.0 == BACKEND).unwrap();
    let path = format!("{}/{BACKEND}.trace", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, &told).unwrap();
    let recorded = replay(recorded).unwrap();
    // When the packet of a cancelled receive comes is up to the kernel.
    let up_to_the_close = |steps: &[Step]| -> Vec<String> {
        let lines = steps.iter().map(shape);
        let mut has_closed = false;
        lines
            .take_while(|line| !std::mem::replace(&mut has_closed, line.starts_with("close")))
            .collect()
    };
    assert_eq!(
        up_to_the_close(&recorded),
        up_to_the_close(&today),
        "see {path}"
    );
}

/// What is the same each time.
fn shape(step: &Step) -> String {
    let name = step.words.split('(').next().unwrap();
    let changes = step.changes.iter().map(|(key, item)| {
        let kind = key.split('|').next().unwrap();
        (kind, item.as_ref().map(|it| &*it.state))
    });
    let changes: BTreeSet<_> = changes.collect();
    format!("{name} {} {changes:?}", step.marks)
}

/// Compares each `known: NAME NUMBER, ...` with the state there.
fn check(steps: &[Step], told: &str) {
    let (mut state, mut compared) = (State::new(), 0);
    let mut slept = 0.0;
    for step in steps {
        for (key, item) in step.changes.clone() {
            match item {
                Some(item) => state.insert(key, item),
                None => state.remove(&key),
            };
        }
        let asleep = asleep(&state);
        assert!(asleep.iter().all(|name| *name == "sleeper"), "{told}");
        if step.thread == "sleeper" && step.says.starts_with("sleeps") {
            slept += step.took;
        }
        let Some(known) = step.words.strip_prefix("known: ") else {
            continue;
        };
        for fact in known.split(", ") {
            let (name, number) = fact.split_once(' ').unwrap();
            assert_eq!(
                derived(&state, name).to_string(),
                number,
                "{fact}: {state:#?}\n{told}"
            );
            compared += 1;
        }
    }
    assert!(compared > 1, "{told}");
    let has_sleeper = steps.iter().any(|step| step.thread == "sleeper");
    assert!(!has_sleeper || slept >= SLEEP.as_millis() as f64, "{told}");
    let seen = |step: &Step| {
        step.changes
            .iter()
            .any(|(key, item)| key == "thread||sleeper" && is_asleep(item.as_ref()))
    };
    assert_eq!(steps.iter().any(seen), has_sleeper, "{told}");
}

fn is_asleep(item: Option<&model::Item>) -> bool {
    item.is_some_and(|it| it.state.starts_with("asleep in"))
}

fn asleep(state: &State) -> Vec<&str> {
    let threads = state.iter().filter_map(|(key, item)| {
        let name = key.strip_prefix("thread||")?;
        is_asleep(Some(item)).then_some(name)
    });
    threads.collect()
}

/// The sum of all sockets, of which each has a note like "5 bytes read, 3 written".
fn bytes(state: &State, at: usize) -> usize {
    let notes = state.iter().filter(|(key, _)| key.starts_with("socket"));
    let numbers = notes.filter_map(|(_, item)| {
        let mut words = item
            .note
            .split(' ')
            .filter_map(|word| word.parse::<usize>().ok());
        words.nth(at)
    });
    numbers.sum()
}

fn derived(state: &State, name: &str) -> usize {
    let count = |kind: &str, is_it: &dyn Fn(&str, &model::Item) -> bool| {
        let of_kind = state
            .iter()
            .filter(|(key, _)| key.split('|').next() == Some(kind));
        of_kind.filter(|(key, item)| is_it(key, item)).count()
    };
    match name {
        "waiting" => {
            count("entry", &|_, it| it.state == "armed")
                + count("operation", &|_, it| it.state == "the kernel's")
        }
        "woken" => {
            count("ready", &|_, it| it.note == "waker")
                + count("packet", &|key, it| {
                    key.contains("no operation") && it.state == "in the port"
                })
        }
        // What the kernel has put into a lent buffer is read without a call.
        "read" => {
            let ended = |it: &model::Item| it.note == "ended with 5 bytes";
            bytes(state, 0) + 5 * count("operation", &|_, it| ended(it))
        }
        "written" => bytes(state, 1),
        "sockets" => count("socket", &|_, _| true),
        "queues" => count("queue", &|_, _| true),
        "connecting" => count("socket", &|_, it| it.state == "connecting"),
        "listening" => count("socket", &|_, it| it.state == "listens"),
        "asleep" => asleep(state).len(),
        _ => panic!("who knows {name}?"),
    }
}

/// The states of all things of a kind after these lines, in the order of their names.
fn states(kind: &str, lines: &[&str]) -> Vec<String> {
    let line = |(at, words): (usize, &&str)| format!("{}.000 ms  main  {words}\n", at + 1);
    let trace: String = lines.iter().enumerate().map(line).collect();
    let mut state = State::new();
    for (key, item) in replay(&trace)
        .unwrap()
        .into_iter()
        .flat_map(|it| it.changes)
    {
        match item {
            Some(item) => state.insert(key, item),
            None => state.remove(&key),
        };
    }
    let items = state.iter().filter(|(key, _)| key.starts_with(kind));
    items.map(|(_, item)| item.state.clone()).collect()
}

fn entries(lines: &[&str]) -> Vec<String> {
    states("entry", lines)
}

const ADD_4: &str = "epoll_ctl(fd 3, EPOLL_CTL_ADD, fd 4, EPOLLIN|EPOLLONESHOT, token 1) = 0";
const ADD_5: &str = "epoll_ctl(fd 3, EPOLL_CTL_ADD, fd 5, EPOLLIN|EPOLLONESHOT, token 1) = 0";
const MOD_4: &str = "epoll_ctl(fd 3, EPOLL_CTL_MOD, fd 4, EPOLLIN|EPOLLONESHOT, token 1) = 0";
const DEL_4: &str = "epoll_ctl(fd 3, EPOLL_CTL_DEL, fd 4) = 0";
const ONE: &str = "epoll_wait(fd 3, capacity 8, no timeout) = 1: [EPOLLIN token 1]";
/// Since before all of these.
const LONG: &str = "epoll_wait(fd 3, capacity 8, no timeout) = 1: [EPOLLIN token 1]  (9.000 ms)";

#[test]
fn an_event_disables_its_entry_until_it_is_armed_again() {
    assert_eq!(entries(&[ADD_4]), ["armed"]);
    assert_eq!(entries(&[ADD_4, ONE]), ["disabled"]);
    assert_eq!(entries(&[ADD_4, LONG]), ["disabled"]);
    assert_eq!(entries(&[ADD_4, ONE, MOD_4]), ["armed"]);
    assert_eq!(entries(&[ADD_4, ONE, MOD_4, DEL_4]), [""; 0]);
}

#[test]
fn whose_an_event_was_is_not_guessed() {
    // Two have the token.
    assert_eq!(entries(&[ADD_4, ADD_5, ONE]), ["unknown", "unknown"]);
    // It may have been on its way when the entry was armed again, or was taken out.
    assert_eq!(entries(&[ADD_4, MOD_4, LONG]), ["unknown"]);
    assert_eq!(entries(&[ADD_4, MOD_4, ONE]), ["disabled"]);
    assert_eq!(entries(&[ADD_4, DEL_4, ADD_5, LONG]), ["unknown"]);
    assert_eq!(entries(&[ADD_4, DEL_4, ADD_5, ONE]), ["disabled"]);
    // The token is another one by now, so the event is an old one's.
    let other = MOD_4.replace("token 1", "token 2");
    assert_eq!(entries(&[ADD_4, &other, LONG]), ["armed"]);
    // The line does not name all events.
    let many = ONE.replace("]", ", and 8 more]");
    assert_eq!(entries(&[ADD_4, &other, &many]), ["unknown"]);
    let perhaps = ONE.replace("token", "waker or token");
    assert_eq!(entries(&[ADD_4, &perhaps]), ["unknown"]);
}

#[test]
fn a_knote_is_gone_with_its_event() {
    let add = "kevent(fd 3, EVFILT_READ fd 4, EV_ADD|EV_ONESHOT, token 1) = 1: [EV_ERROR 0]";
    let event = "kevent(fd 3, capacity 8, no timeout) = 1: [EVFILT_READ fd 4 5 bytes token 1]";
    let other = event.replace("READ", "WRITE");
    let failed = add.replace("ERROR 0", "ERROR ENOENT");
    assert_eq!(entries(&[add]), ["armed"]);
    assert_eq!(entries(&[add, &other]), ["armed"]);
    assert_eq!(entries(&[add, event]), [""; 0]);
    assert_eq!(entries(&[add, event, add]), ["armed"]);
    assert_eq!(entries(&[&failed]), [""; 0]);
    assert_eq!(entries(&[add, "close(fd 4)"]), [""; 0]);
}

/// Until its packet is taken, and whatever becomes of the socket.
#[test]
fn what_is_lent_is_the_kernels() {
    const ATTACH: &str = "CreateIoCompletionPort(socket 0x8, port 0x4, key 0) = port 0x4";
    const RECEIVE: &str = "WSARecv(socket 0x8, 64 bytes lent, operation 0xc) = -1 WSA_IO_PENDING";
    const TAKE: &str = "GetQueuedCompletionStatusEx(port 0x4, capacity 8, no timeout) = 1: [5 bytes of operation 0xc]";
    let operations = |lines: &[&str]| states("operation", &[&[ATTACH], lines].concat());
    let packets = |lines: &[&str]| states("packet", &[&[ATTACH], lines].concat());
    assert_eq!(operations(&[RECEIVE]), ["the kernel's"]);
    assert_eq!(packets(&[RECEIVE]), [""; 0]);
    assert_eq!(operations(&[RECEIVE, TAKE]), ["yours"]);
    assert_eq!(operations(&[RECEIVE, TAKE, RECEIVE]), ["the kernel's"]);
    // The packet of what has ended at once is known to be there.
    let at_once = RECEIVE.replace("-1 WSA_IO_PENDING", "0");
    assert_eq!(operations(&[&at_once]), ["the kernel's"]);
    assert_eq!(packets(&[&at_once]), ["in the port"]);
    assert_eq!(packets(&[&at_once, TAKE]), ["taken"]);
    // One that was posted tells nothing of the operation.
    let post = "PostQueuedCompletionStatus(port 0x4, 0 bytes, operation 0xc) = 1";
    assert_eq!(packets(&[post]), ["in the port"]);
    assert_eq!(operations(&[RECEIVE, post, TAKE]), ["the kernel's"]);
    let other = post.replace("0xc", "0xcc");
    assert_eq!(packets(&[&other, TAKE]), ["taken", "in the port"]);
    assert_eq!(packets(&[post, post, TAKE, post]), ["in the port"; 2]);
    let refused = RECEIVE.replace("WSA_IO_PENDING", "WSAECONNRESET");
    assert_eq!(operations(&[&refused]), [""; 0]);
    let cancel = "CancelIoEx(socket 0x8, operation 0xc) = 1";
    let close = "closesocket(socket 0x8)";
    assert_eq!(operations(&[RECEIVE, cancel, close]), ["the kernel's"]);
    assert_eq!(operations(&[RECEIVE, cancel, close, TAKE]), ["yours"]);
    assert_eq!(operations(&[RECEIVE, cancel, close, TAKE, close]), [""; 0]);
    assert_eq!(operations(&[RECEIVE, TAKE, close]), [""; 0]);
}

#[test]
fn a_line_that_is_not_known_breaks_nothing() {
    for (name, trace) in RECORDED {
        let strange = trace.replace('\n', "\r\nHello!\n  9.999 ms  main  read_minds(fd 4) = 5\n");
        let steps = replay(&strange).unwrap();
        assert_eq!(backend(&steps), name);
        check(&steps, &strange);
        assert!(steps.iter().any(|step| step.words == "Hello!"));
        assert!(
            steps
                .iter()
                .any(|step| step.words == "read_minds(fd 4) = 5")
        );
        for end in (0..trace.len()).step_by(7) {
            replay(&trace[..end]);
            replay(&trace[end..]);
        }
    }
}

#[test]
fn a_page_stands_alone() {
    for (name, trace) in RECORDED {
        let output = page_of(trace);
        assert!(output.status.success());
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains(&format!("\"backend\":\"{name}\"")));
        for link in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(link), "{link}");
        }
        assert!(page.len() < 40_000, "{}", page.len());
    }
}

#[test]
fn no_text_of_a_trace_ends_the_script() {
    let output = page_of("1.0 ms  main  close(fd 4)\n</script><!-- \"\\\u{2028}\u{1}");
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains(r#""\u003c/script>\u003c!-- \"\\\u2028\u0001""#));
}

#[test]
fn what_is_no_trace_is_an_error() {
    for text in ["", "Hello!\n", "  1.0 ms\n", "1.0 ms  main  hello\n"] {
        let output = page_of(text);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"");
        let why = String::from_utf8(output.stderr).unwrap();
        assert_eq!(why, "replay: - has no line of the feature trace\n");
    }
}

fn page_of(trace: &str) -> std::process::Output {
    let mut child = example("replay", &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(trace.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}
