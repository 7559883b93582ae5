//! Tests the example's program as a black box: its output, its answers, and how it handles misuse.

mod common;

use common::delayserver::{Answer, Server, command, get, rest, run, stderr, stdout};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// A line of the timeline: delay, registered, waited and event (in ms; a failed request may lack some), and the answer.
type Line = (u64, Option<f64>, Option<f64>, Option<f64>, String);

fn parse_line(line: &str) -> Option<Line> {
    let (figures, rest) = line.split_once(" |")?;
    let (_bar, answer) = rest.split_once("| ")?;
    let figures = figures.replace(" ms", "");
    let figures: Vec<&str> = figures.split_whitespace().collect();
    let [token, delay, registered, waited, event] = figures[..] else {
        return None;
    };
    token.parse::<usize>().ok()?;
    let time = |figure: &str| (figure != "-").then(|| figure.parse().expect("a time"));
    Some((
        delay.parse().ok()?,
        time(registered),
        time(waited),
        time(event),
        answer.into(),
    ))
}

#[test]
fn the_main_job_tells_the_books_story() {
    let output = run(&[]);
    let stdout = stdout(&output);
    assert!(output.status.success(), "{stdout}\n{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert!(stdout.contains("Waiting! Poll {"), "{stdout}");
    // Each line of the trace names its thread, and the output says whose thread that is.
    assert!(stdout.starts_with("A delay server on 127.0.0.1:"));
    assert!(stdout.contains(", in the thread `server`.\nTen requests of 1000 to 100 ms, from"));
    assert!(stdout.contains(" the threads `main` and `reactor`:\n"));
    let trace = String::from_utf8_lossy(&output.stderr);
    for thread in ["server", "main", "reactor"] {
        let is_named = trace.contains(&format!("  {thread} "));
        assert_eq!(is_named, cfg!(feature = "trace"), "{thread}: {trace}");
    }
    for token in 0..10 {
        // An answer that arrives in two parts has two events.
        let events = stdout
            .lines()
            .filter(|line| line.starts_with(&format!("Event {token}: ")));
        assert_eq!(
            events.filter(|line| line.ends_with(", done")).count(),
            1,
            "{stdout}"
        );
    }
    assert!(
        !stdout.contains('\x1b'),
        "colours, although the output is no terminal"
    );

    assert_fits_80_columns(stdout);

    let lines: Vec<_> = stdout.lines().filter_map(parse_line).collect();
    // The end of the axis is the last event.
    let heading = stdout.lines().find(|line| line.starts_with("token "));
    assert!(
        heading
            .unwrap()
            .ends_with(&format!(" {:.1} ms| answer", lines[0].3.unwrap())),
        "{stdout}"
    );
    let mut delays: Vec<_> = lines.iter().map(|line| line.0).collect();
    delays.sort();
    assert_eq!(
        delays,
        [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
        "{stdout}"
    );
    for (delay, registered, waited, event, answer) in &lines {
        assert_eq!(answer, &format!("after-{delay}-ms"));
        // The request was sent shortly before it was registered, and the figures are rounded.
        let (registered, waited, event) = (registered.unwrap(), waited.unwrap(), event.unwrap());
        assert!(event >= *delay as f64, "{stdout}");
        assert!((registered + waited - event).abs() < 0.2, "{stdout}");
    }
    // If the client had waited for one answer after the other, the last event would have come after the sum of all
    // waits.
    let together: f64 = lines.iter().filter_map(|line| line.2).sum();
    let last = lines.iter().filter_map(|line| line.3).fold(0.0, f64::max);
    assert!(last < together, "{stdout}");
}

fn assert_fits_80_columns(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn get_asks_any_server() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let output = run(&[
        "get",
        &addr,
        "30",
        "plain",
        "10",
        "with space/and ünicode?&%",
        "0",
        "now",
    ]);
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    let answers: Vec<_> = lines.iter().map(|line| (line.0, line.4.as_str())).collect();
    assert_eq!(
        answers,
        [(30, "plain"), (10, "with space/and ünicode?&%"), (0, "now")]
    );
    assert!(output.status.success());
}

/// The name may have several addresses. The server listens on only one of them, which may not be the first.
#[test]
fn get_asks_a_server_by_its_name() {
    let server = Server::start();
    let addr = format!("localhost:{}", server.addr.port());
    let output = run(&["get", &addr, "30", "x", "10", "y"]);
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    let answers: Vec<_> = lines.iter().map(|line| line.4.as_str()).collect();
    assert_eq!(answers, ["x", "y"], "{}", stderr(&output));
    assert!(output.status.success());
}

/// A system without room for a connection may ignore the attempt, or refuse it after a while.
#[test]
fn get_waits_for_a_connection_no_longer_than_it_is_told() {
    let (listener, _waiting, _made) = common::waiting_connection(&mut common::Loop::new());
    let addr = listener.local_addr().unwrap();
    let output = run(&["get", "--timeout", "100", &addr.to_string(), "1", "x"]);
    let said = stderr(&output);
    let is_refused = said.contains("refused");
    assert!(
        said.ends_with("no connection came within 100 ms\n") || is_refused,
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}

/// What a server does after it has sent its answer.
#[derive(Clone, Copy)]
enum Then {
    Closes,
    Stays,
    SendsOn,
}

/// Starts a server that sends `answer` to one client, and ends when the client closes the connection.
fn sending(answer: &'static str, then: Then) -> SocketAddr {
    let (listener, addr) = common::listen();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 16]).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        match then {
            Then::Closes => drop(rest(stream)),
            Then::Stays => drop(stream.read_to_end(&mut Vec::new())),
            Then::SendsOn => while stream.write_all(&[b'x'; 4096]).is_ok() {},
        }
    });
    addr
}

/// Returns what `get` prints for the answer of such a server, and whether `get` succeeds.
fn shown(answer: &'static str, then: Then) -> (String, bool) {
    let addr = sending(answer, then).to_string();
    let output = run(&["get", "--timeout", "20000", &addr, "1", "x"]);
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    assert_eq!(lines.len(), 1, "{answer:?}: {}", stdout(&output));
    (lines[0].4.clone(), output.status.success())
}

#[test]
fn get_takes_what_other_servers_send() {
    let cases = [
        "HTTP/1.1 200 OK\r\ncontent-length:4\r\n\r\nfine",
        "HTTP/1.0 200 OK\r\n\r\nfine",
        "HTTP/1.1 200 OK\n\nfine",
        "HTTP/1.1 200 Well done\r\n\r\nfine",
        "HTTP/1.1 200 \r\n\r\nfine",
        "HTTP/1.1 200\r\n\r\nfine",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nfine",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfine and more",
    ];
    for answer in cases {
        assert_eq!(
            shown(answer, Then::Closes),
            ("fine".into(), true),
            "{answer:?}"
        );
    }
    // No control character reaches the terminal.
    let answer = "HTTP/1.1 200 OK\r\n\r\nbell \x07 \u{202E}\u{61C} \u{2028}\u{2029}";
    assert_eq!(shown(answer, Then::Closes), ("bell ? ?? ??".into(), true));
}

#[test]
fn get_waits_no_longer_than_until_the_answer_is_whole() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    for then in [Then::Stays, Then::SendsOn] {
        assert_eq!(shown(whole, then), ("fine".into(), true));
    }
    let nothing = "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n";
    assert_eq!(
        shown(nothing, Then::Stays),
        ("304 Not Modified: ".into(), false)
    );
}

#[test]
fn get_says_what_is_wrong_with_an_answer() {
    let cut = "the connection was closed before the answer was complete";
    let length = "the answer's Content-Length is wrong";
    let not_http = "this is not an HTTP/1.1 answer";
    let in_chunks = "the answer has a Transfer-Encoding, which we did not ask for";
    let cases = [
        (
            "HTTP/1.1 404 Not Found\r\n\r\nno",
            Then::Closes,
            "404 Not Found: no",
        ),
        ("HTTP/1.1 2000 OK\r\n\r\nno", Then::Closes, not_http),
        ("HTTP/1.1 OK\r\n\r\nno", Then::Closes, not_http),
        ("HTTP/2 200\r\n\r\nno", Then::Closes, not_http),
        ("SSH-2.0-OpenSSH\r\n", Then::Stays, not_http),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfin",
            Then::Closes,
            cut,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Len", Then::Closes, cut),
        ("HTTP/1.1 100 Continue\r\n\r\n", Then::Closes, cut),
        ("", Then::Closes, cut),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nfin",
            Then::Stays,
            length,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nfin",
            Then::Stays,
            length,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 2\r\n\r\nfin",
            Then::Stays,
            length,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n",
            Then::Closes,
            in_chunks,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\n",
            Then::SendsOn,
            "the answer is too long",
        ),
    ];
    for (answer, then, why) in cases {
        assert_eq!(shown(answer, then), (why.into(), false), "{answer:?}");
    }
}

#[test]
fn get_gives_up_what_takes_too_long() {
    let addr = sending("HTTP/1.1 200 OK\r\nContent-Len", Then::Stays).to_string();
    let output = run(&["get", "--timeout", "100", &addr, "50", "x"]);
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    assert_eq!(lines[0].4, "no complete answer came within 150 ms");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_connection_that_fails_is_the_outcome_of_its_request_only() {
    const REQUESTS: usize = 30;
    let (listener, addr) = common::listen();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener); // resets the connections in its queue; later ones are refused
        stream.read_exact(&mut [0; 16]).unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nfine").unwrap();
        rest(stream)
    });
    let addr = addr.to_string();
    let args = ["get", &addr]
        .into_iter()
        .chain(["1", "x"].repeat(REQUESTS));
    let output = run(&args.collect::<Vec<_>>());
    server.join().unwrap();
    assert_eq!(stderr(&output), "");
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    assert_eq!(lines.len(), REQUESTS, "{}", stdout(&output));
    let answered = lines.iter().filter(|line| line.4 == "fine");
    assert_eq!(answered.count(), 1, "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn get_says_when_an_answer_is_none() {
    let server = Server::start();
    let output = run(&[
        "get",
        &server.addr.to_string(),
        "60001",
        "late",
        "1",
        "fine",
    ]);
    let lines: Vec<_> = stdout(&output).lines().filter_map(parse_line).collect();
    assert!(lines[0].4.starts_with("400 Bad Request"), "{lines:?}");
    assert_eq!(lines[1].4, "fine");
    assert_eq!(output.status.code(), Some(1));
    // The column is wide enough for a long delay.
    let rows = stdout(&output).lines().filter_map(|line| line.find(" |"));
    let bars: Vec<usize> = rows.collect();
    assert_eq!(bars, [bars[0]; 3], "{}", stdout(&output));
}

#[test]
fn a_wrong_command_line_is_told_what_is_wrong_and_what_is_right() {
    let addr = "127.0.0.1:1";
    let wrong: &[(&[&str], &str)] = &[
        (&["bogus"], "unknown argument `bogus`"),
        (&["--bogus"], "unknown argument `--bogus`"),
        (&["serve", "--addr"], "`--addr` needs a value"),
        (&["serve", "--port", "1"], "unknown argument `--port`"),
        (&["serve", "127.0.0.1:0"], "unknown argument `127.0.0.1:0`"),
        (&["serve", "--size", "-1"], "not a number of bytes: `-1`"),
        (&["serve", "--svg", "x.svg"], "unknown argument `--svg`"),
        (&["get"], "`get` needs an ADDR, a DELAY and a TEXT"),
        (&["get", addr], "`get` needs an ADDR, a DELAY and a TEXT"),
        (&["get", addr, "100"], "there is no TEXT after `100`"),
        (
            &["get", addr, "1", "a", "200"],
            "there is no TEXT after `200`",
        ),
        (
            &["get", addr, "soon", "a"],
            "not a number of milliseconds: `soon`",
        ),
        (
            &["get", addr, "-1", "a"],
            "not a number of milliseconds: `-1`",
        ),
        (
            &["get", addr, "1", "a", "--svg", "x"],
            "not a number of milliseconds: `--svg`",
        ),
        (
            &["get", "--bogus", "x", addr, "1", "a"],
            "unknown argument `--bogus`",
        ),
        (&["get", "--timeout"], "`--timeout` needs a value"),
        (
            &["get", "--timeout", "x", addr, "1", "a"],
            "not a number of milliseconds: `x`",
        ),
        (
            &["get", "--timeout", "0", addr, "1", "a"],
            "not a number of milliseconds: `0`",
        ),
        (&["get", "--svg"], "`--svg` needs a value"),
        (
            &["get", "--svg", "x.svg"],
            "`get` needs an ADDR, a DELAY and a TEXT",
        ),
        (&["--help", "me"], "unknown argument `me`"),
        (&["--svg"], "`--svg` needs a value"),
        (&["--svg", "x.svg", "more"], "unknown argument `more`"),
    ];
    let help = run(&["--help"]);
    for (args, why) in wrong {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = format!("delayserver: {why}\n\n{}", stdout(&help));
        assert_eq!(stderr(&output), said, "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    let mut not_text = command(&[]);
    let output = not_text.arg(common::os::not_unicode()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.starts_with("delayserver: not valid Unicode: `"),
        "{said}"
    );
    assert!(said.contains("Usage:"));
}

#[test]
fn help_helps() {
    let cases: [&[&str]; 5] = [
        &["--help"],
        &["-h"],
        &["help"],
        &["get", "--help"],
        &["serve", "-h"],
    ];
    for args in cases {
        let output = run(args);
        assert!(output.status.success());
        for word in [
            "Usage:",
            "serve",
            "get",
            "curl",
            "60000",
            "NO_COLOR",
            "--svg",
            "--timeout",
        ] {
            assert!(stdout(&output).contains(word), "{word}");
        }
        assert_fits_80_columns(stdout(&output));
    }
}

#[test]
fn what_goes_wrong_at_the_start_is_said_in_one_line() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let (_taken, nobody) = common::nobody();
    let nobody = nobody.to_string();
    let no_port = "`localhost` has no port: write HOST:PORT";
    let cases: [(&[&str], &str); 7] = [
        (
            &["serve", "--addr", &addr],
            &format!("cannot listen on {addr}: "),
        ),
        (
            &["serve", "--addr", "not an address"],
            "`not an address` has no port",
        ),
        (&["serve", "--addr", "localhost"], no_port),
        (&["serve", "--addr", "[::1]"], "`[::1]` has no port"),
        (&["get", "localhost", "1", "x"], no_port),
        (
            &["get", "no-such-host.invalid:1", "1", "x"],
            "no-such-host.invalid:1: ",
        ),
        (
            &["get", &nobody, "1", "x", "1", "y"],
            &format!("{nobody}: "),
        ),
    ];
    for (args, why) in cases {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.starts_with(&format!("delayserver: {why}")), "{said}");
    }
}

/// No thread can start with such a large stack.
#[test]
fn what_cannot_be_started_is_named() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let cases: [(&[&str], &str); 3] = [
        (&[], "server"),
        (&["serve"], "input"),
        (&["get", &addr, "1", "x"], "reactor"),
    ];
    for (args, thread) in cases {
        let mut command = command(args);
        command.env("RUST_MIN_STACK", (usize::MAX / 16 * 15).to_string());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let complaint = stderr(&output);
        let begin = format!("delayserver: cannot start the thread `{thread}`: ");
        assert!(complaint.starts_with(&begin), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn serve_stops_when_its_input_ends() {
    let mut server = Server::start();
    let waiting = server.ask(60_000, "never");
    let _silent = server.connect();
    assert!(server.answer_to(get(0, "x").as_bytes()).is(200, "x"));
    assert!(server.stop().success());
    assert_eq!(rest(waiting), b"");
}

#[test]
fn serve_listens_where_it_is_told_to() {
    // Another program may take the address as soon as `listen`'s socket is closed, but not each time.
    let (server, addr) = (0..20)
        .find_map(|_| {
            let (_, addr) = common::listen();
            let mut command = command(&["serve", "--addr", &addr.to_string()]);
            command.stdin(Stdio::piped());
            let server = Server::try_start_by(command)?;
            Some((server, addr))
        })
        .expect("a free address");
    assert_eq!(server.addr, addr);
    assert!(server.answer_to(get(0, "here").as_bytes()).is(200, "here"));
}

#[test]
fn an_answer_comes_after_its_delay_and_not_before() {
    let server = Server::start();
    for delay in [0, 1, 7, 50, 300] {
        let asked = Instant::now();
        let answer = server.answer_to(get(delay, "text").as_bytes());
        assert!(asked.elapsed() >= Duration::from_millis(delay.into()));
        assert!(answer.is(200, "text"), "{answer:?}");
    }
}

#[test]
fn the_text_may_be_any() {
    let server = Server::start();
    let long = "x".repeat(8000);
    for (sent, received) in [
        ("", ""),
        ("a/b//c/", "a/b//c/"),
        ("a?b=c&d#e", "a?b=c&d#e"),
        ("%41%2f%2F%20%25+", "A// %+"),
        ("h%C3%A9", "hé"),
        ("hé", "hé"),
        (&long, &long),
    ] {
        let answer = server.answer_to(get(0, sent).as_bytes());
        assert!(answer.is(200, received), "{sent}: {answer:?}");
    }
}

#[test]
fn whoever_asks_wrong_is_told_why_and_hurts_nobody() {
    let server = Server::start();
    let waiting = server.ask(1000, "undisturbed");
    let huge_field = format!("GET /1/x HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(8192));
    let huge_line = format!("GET /1/{} HTTP/1.1\r\n\r\n", "x".repeat(9000));
    let endless = "GET /1/x HTTP/1.1\r\n".to_string() + &"X: y\r\n".repeat(12_000);
    let garbage: Vec<u8> = (0..65_536).map(|at| b'!' + (at % 90) as u8).collect();
    let delay = "the delay must be a whole number of milliseconds, 60000 at most\n";
    let path = "unknown path: ask for /DELAY_MS/TEXT\n";
    let not_http = "this is not an HTTP/1.1 request\n";
    let head = "the request's head is longer than 8192 bytes\n";
    let method = "this server only knows GET and HEAD\n";
    let percent = "in the text, % must come with two hexadecimal digits\n";
    let cases: &[(&[u8], u16, &str)] = &[
        (b"hello\r\n\r\n", 400, not_http),
        (b"\r\n\r\n", 400, not_http), // one empty line is ignored
        (b"\n\n", 400, not_http),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            400,
            not_http,
        ),
        (b"\0", 400, not_http),
        (b"GET /1/x\r\n\r\n", 400, not_http),
        (b"GET /1/x HTTP/2.0\r\n\r\n", 400, not_http),
        (b"GET /1/x http/1.1\r\n\r\n", 400, not_http),
        (b"GET  /1/x HTTP/1.1\r\n\r\n", 400, not_http),
        (b"GET /1/x y HTTP/1.1\r\n\r\n", 400, not_http),
        (b"G@T /1/x HTTP/1.1\r\n\r\n", 400, not_http),
        (b" /1/x HTTP/1.1\r\n\r\n", 400, not_http),
        (b"GET 1/x HTTP/1.1\r\n\r\n", 400, not_http),
        (b"GET * HTTP/1.1\r\n\r\n", 400, not_http),
        (b"GET localhost:1 HTTP/1.1\r\n\r\n", 400, not_http),
        // These heads have no end. The server refuses them at once, because the rest could not make them valid.
        (b"GET /1/x\rHTTP/1.1", 400, not_http),
        (b"\rG", 400, not_http),
        (b"\r\r\n", 400, not_http),
        (b"GET /1/x HTTP/1.1\r\r\n", 400, not_http),
        (b"GET /1/x HTTP/1.1\r\nX: y\rZ", 400, not_http),
        (b"GET / HTTP/1.1\r\n\r\n", 404, path),
        (b"GET /1 HTTP/1.1\r\n\r\n", 404, path),
        (b"GET /favicon.ico HTTP/1.1\r\n\r\n", 404, path),
        (b"GET http://test HTTP/1.1\r\n\r\n", 404, path),
        (b"GET http://test/1 HTTP/1.1\r\n\r\n", 404, path),
        (b"GET http://test/soon/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET //x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /soon/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /1.5/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /-1/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /+1/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /60001/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /4294967296/x HTTP/1.1\r\n\r\n", 400, delay),
        (
            b"GET /99999999999999999999999/x HTTP/1.1\r\n\r\n",
            400,
            delay,
        ),
        (b"GET /\xff/x HTTP/1.1\r\n\r\n", 400, delay),
        (b"GET /1/% HTTP/1.1\r\n\r\n", 400, percent),
        (b"GET /1/%4 HTTP/1.1\r\n\r\n", 400, percent),
        (b"GET /1/%xy HTTP/1.1\r\n\r\n", 400, percent),
        (
            b"POST /1/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            405,
            method,
        ),
        (b"get /1/x HTTP/1.1\r\n\r\n", 405, method),
        (b"DELETE / HTTP/1.1\r\n", 405, method),
        (huge_field.as_bytes(), 431, head),
        (huge_line.as_bytes(), 431, head),
        (endless.as_bytes(), 431, head),
        (&garbage, 431, head),
    ];
    for (request, status, reason) in cases {
        let answer = server.answer_to(request);
        assert!(
            answer.is(*status, reason),
            "{} got {answer:?}",
            String::from_utf8_lossy(&request[..request.len().min(60)])
        );
        assert_eq!(
            answer.head.contains("\r\nAllow: GET, HEAD\r\n"),
            *status == 405
        );
    }
    assert!(Answer::read(waiting).is(200, "undisturbed"));
}

#[test]
fn what_may_be_written_in_other_ways_is_understood() {
    let server = Server::start();
    let full = "GET /0/x HTTP/1.1\r\nX: ".to_string();
    let full = format!("{full}{}\r\n\r\n", "y".repeat(8192 - 4 - full.len()));
    assert_eq!(full.len(), 8192);
    for request in [
        "GET /0/x HTTP/1.0\r\n\r\n",
        "GET /0/x HTTP/1.1\n\n",
        "\r\nGET /0/x HTTP/1.1\r\n\r\n",
        "\nGET /0/x HTTP/1.1\r\n\r\n",
        "GET http://test/0/x HTTP/1.1\r\n\r\n",
        "GET HTTP://test:80/0/x HTTP/1.1\r\n\r\n",
        "GET /0000/x HTTP/1.1\r\n\r\n",
        "GET /0/x HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n\r\nand bytes beyond the request",
        &full,
    ] {
        let answer = server.answer_to(request.as_bytes());
        assert!(answer.is(200, "x"), "{request}: {answer:?}");
    }
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in get(10, "slow").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(Answer::read(stream).is(200, "slow"));
}

#[test]
fn a_head_that_does_not_end_is_answered_after_ten_seconds() {
    let server = Server::start();
    let connected = Instant::now();
    let silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"GET /1/x HTTP/1.1\r\n").unwrap();
    for stream in [silent, slow] {
        let answer = Answer::read(stream);
        assert!(
            answer.is(408, "no complete request came within 10 seconds\n"),
            "{answer:?}"
        );
        // The ten seconds begin when the server accepts the connection. One second is a margin for inexact clocks.
        assert!(connected.elapsed() > Duration::from_secs(9));
    }
}

#[test]
fn the_answer_to_head_has_no_body() {
    let server = Server::start();
    for (request, status) in [
        ("HEAD /0/text HTTP/1.1\r\n\r\n", 200),
        ("\r\nHEAD /0/text HTTP/1.1\r\n\r\n", 200),
        ("HEAD /x HTTP/1.1\r\n\r\n", 404),
        ("HEAD /60001/x HTTP/1.1\r\n\r\n", 400),
    ] {
        let head = Answer::read_head(server.send(request.as_bytes()));
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{head:?}");
        let get = server.answer_to(request.replace("HEAD", "GET").as_bytes());
        assert_eq!((get.status, get.head), (status, head.head));
    }
}

/// The server drops a client at once if it ends its stream before its request is complete, or resets its connection.
#[test]
fn whoever_leaves_is_forgotten_at_once() {
    let server = Server::start();
    for request in ["", "GET /6", "GET /60000/x HTTP/1.1\r\n"] {
        assert_eq!(rest(server.send(request.as_bytes())), b"", "{request:?}");
    }
    // All of them reset their connections, with surplus bytes that the server may not have read.
    let many: Vec<_> = (0..200)
        .map(|at| server.ask(60_000, &format!("{at}")))
        .collect();
    for mut stream in many {
        let _ = stream.write_all(&[b'x'; 1000]);
        common::os::reset_when_closed(&stream);
    }
    assert!(server.answer_to(get(1, "here").as_bytes()).is(200, "here"));
}

#[test]
fn a_client_that_sends_no_more_is_answered_all_the_same() {
    let server = Server::start();
    let refused = "GET /x HTTP/1.1\r\n\r\n";
    for (request, text) in [
        (get(0, "now"), "now"),
        (get(200, "later"), "later"),
        (refused.into(), "unknown path: ask for /DELAY_MS/TEXT\n"),
    ] {
        let stream = server.send(request.as_bytes());
        stream.shutdown(Shutdown::Write).unwrap();
        let answer = Answer::read(stream);
        assert_eq!(answer.body, text);
    }
    // While the client waits, the server does not read the end of its stream again and again.
    let before = Usage::of(&server);
    let stream = server.ask(1000, "idle");
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(Answer::read(stream).is(200, "idle"));
    if let (Some(before), Some(now)) = (before, Usage::of(&server)) {
        let ticks = now.ticks - before.ticks;
        assert!(ticks < 50, "{ticks} clock ticks of processor time");
    }
}

/// The server discards what a client sends while it waits, and still sends the answer.
#[test]
fn a_talkative_client_is_answered_all_the_same() {
    let server = Server::start();
    let mut stream = server.ask(200, "quiet");
    for _ in 0..64 {
        stream.write_all(&[b'x'; 1024]).unwrap();
    }
    assert!(Answer::read(stream).is(200, "quiet"));
}

/// More bytes than the socket buffers of any system hold.
const LARGE: usize = 12 << 20;

fn start_large() -> Server {
    Server::start_by(command(&["serve", "--size", &LARGE.to_string()]))
}

fn wait_for_answer(stream: &TcpStream) {
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
}

/// Reads up to the end, and returns the length of the body, which must be the text and dots.
fn length_of_rest(mut stream: TcpStream, text: &str) -> usize {
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received); // an error if the server has closed the connection
    let head = received.windows(4).position(|end| end == b"\r\n\r\n");
    let body = &received[head.expect("a head") + 4..];
    assert!(body.starts_with(text.as_bytes()));
    // Compared in large pieces, because the server disconnects a client that reads its answer too slowly.
    let dots = [b'.'; 4096];
    let mut pieces = body[text.len()..].chunks(dots.len());
    assert!(pieces.all(|piece| piece == &dots[..piece.len()]));
    body.len()
}

#[test]
fn a_client_that_takes_its_answer_slowly_keeps_nobody_waiting() {
    let server = start_large();
    let before = Usage::of(&server);
    let slow = [(); 3].map(|()| server.ask(0, "slow"));
    slow.iter().for_each(wait_for_answer);
    assert_eq!(length_of_rest(server.ask(10, "fast"), "fast"), LARGE);
    if let (Some(before), Some(now)) = (before, Usage::of(&server)) {
        let more = now.memory.saturating_sub(before.memory);
        assert!(more < LARGE / 4, "{more} bytes for three large answers");
    }
    // All at the same time, because the server does not wait long for one that takes nothing.
    let readers = slow.map(|stream| thread::spawn(|| length_of_rest(stream, "slow")));
    for reader in readers {
        assert_eq!(reader.join().unwrap(), LARGE);
    }
    let head = server.send(b"HEAD /0/x HTTP/1.1\r\n\r\n");
    assert_eq!(Answer::read_head(head).length, LARGE);
}

/// Sends until there is no room. Returns the number of bytes sent.
fn fill(stream: &mut TcpStream) -> usize {
    let mut sent = 0;
    stream.set_nonblocking(true).unwrap();
    let error = loop {
        match stream.write(&[b'x'; 64 << 10]) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    sent
}

/// The server reads nothing from a client that does not read its answer, so that such a client cannot keep it busy.
#[test]
fn a_client_that_does_not_take_its_answer_is_not_listened_to() {
    let server = start_large();
    let mut stream = server.ask(0, "x");
    wait_for_answer(&stream);
    // The system moves bytes from our send buffer to the server's receive buffer, until both are full.
    let is_full = (0..20).any(|_| {
        let sent = fill(&mut stream);
        assert_eq!(length_of_rest(server.ask(0, "y"), "y"), LARGE);
        sent == 0
    });
    assert!(is_full);
    assert_eq!(length_of_rest(stream, "x"), LARGE);
}

#[test]
fn a_client_that_takes_nothing_for_ten_seconds_is_disconnected() {
    let server = start_large();
    let asked = Instant::now();
    let mut idle = server.ask(0, "idle");
    wait_for_answer(&idle);
    // Bytes that arrive at a closed connection cause a reset.
    while idle.write(b"!").is_ok() {
        assert!(asked.elapsed() < common::PATIENCE);
        Answer::read_head(server.send(b"HEAD /100/x HTTP/1.1\r\n\r\n"));
    }
    assert!(asked.elapsed() > Duration::from_secs(9));
}

#[test]
fn two_thousand_wait_at_once() {
    const CLIENTS: usize = 2000;
    common::os::allow_open_handles(CLIENTS + 500); // tests that run in parallel need some too
    let server = Server::start();
    let before = Usage::of(&server);
    // All clients must be waiting before the first one is answered. The delay that this needs depends on the machine.
    let started = Instant::now();
    drop(server.ask_often(CLIENTS / 10, 60_000));
    let delay = (started.elapsed() * 150).clamp(Duration::from_secs(3), Duration::from_secs(60));
    let waiting = server.ask_often(CLIENTS, delay.as_millis() as u32);
    waiting[0].set_nonblocking(true).unwrap();
    assert_eq!(
        waiting[0].peek(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "too slow: the first client already has its answer"
    );
    waiting[0].set_nonblocking(false).unwrap();
    assert!(server.answer_to(get(0, "x").as_bytes()).is(200, "x"));
    if let (Some(before), Some(now)) = (before, Usage::of(&server)) {
        assert!(now.threads <= 2, "{} threads", now.threads);
        let each = now.memory.saturating_sub(before.memory) / CLIENTS;
        assert!(each < 1024, "{each} bytes for each client");
    }
    for (at, stream) in waiting.into_iter().enumerate() {
        let answer = Answer::read(stream);
        assert!(answer.is(200, &at.to_string()), "{at}: {answer:?}");
    }
}

/// The server's use of resources. Known only on Linux, from `/proc`.
struct Usage {
    threads: usize,
    memory: usize,
    /// Processor time in clock ticks, in user mode and in the kernel.
    ticks: usize,
}

impl Usage {
    fn of(server: &Server) -> Option<Usage> {
        if std::env::var_os("DELAYSERVER_RUNNER").is_some() {
            return None; // it would be the emulator's
        }
        let about = |file| fs::read_to_string(format!("/proc/{}/{file}", server.child.id())).ok();
        let (status, stat) = (about("status")?, about("stat")?);
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<usize>().ok()
        };
        Some(Usage {
            threads: figure("Threads:")?,
            memory: figure("VmRSS:")? * 1024,
            ticks: stat
                .split(' ')
                .skip(13)
                .take(2)
                .flat_map(str::parse::<usize>)
                .sum(),
        })
    }
}

#[test]
fn nobody_need_read_what_it_prints() {
    for args in [&[][..], &["--help"]] {
        let mut child = command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "");
        assert!(output.status.success());
    }
}

/// Linux has `/dev/full`, which behaves like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_a_failure() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let cases: [&[&str]; 4] = [&[], &["--help"], &["serve"], &["get", &addr, "1", "x"]];
    for args in cases {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = command(args);
        command.stdin(Stdio::null()).stdout(full);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = stderr(&output);
        assert!(
            said.starts_with("delayserver: cannot write the output: "),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
