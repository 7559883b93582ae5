//! The book's program, complete: a server that answers late, and a client that waits for many answers in one thread.
//!
//! Read `client.rs` first (it is the book's story), then `server.rs`; `http.rs`, `record.rs`, `timeline.rs` and
//! `picture.rs` are plumbing.

mod client;
mod http;
mod picture;
mod record;
mod server;
mod timeline;

use client::Query;
use server::Server;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::{env, thread};

const HELP: &str = "\
A server that answers late, and a client that waits for many answers in one thread.

Usage:
  delayserver [--svg FILE]         start a server, send it ten requests, draw who waited when
  delayserver serve [--addr ADDR]  only the server (default: 127.0.0.1:0, a free port)
  delayserver get [--svg FILE] ADDR DELAY TEXT [...]
                                   only the client: ask ADDR for TEXT after DELAY milliseconds
  delayserver --help

The server prints its address on its first line and serves until its standard input ends, or Ctrl-C.
To leave it in the background, give it an input that does not end: `tail -f /dev/null | delayserver serve &`.
It answers `GET /DELAY/TEXT HTTP/1.1` with TEXT after DELAY (0 to 60000) milliseconds; try a browser,
or `curl http://ADDR/1000/hello`. Whoever closes its connection has left, and gets no answer.

The client works with any server that answers such requests. It takes any number of DELAY TEXT pairs,
waits for all of them at once, and ends with 1 if one of them was not answered. Set NO_COLOR to get a
plain timeline in a terminal too.
With --svg it writes the timeline to FILE as well, as a picture for any browser, with more in it: what each thread did,
and every wait of the reactor.
";

fn main() -> ExitCode {
    let args: Result<Vec<String>, _> = env::args_os().skip(1).map(OsString::into_string).collect();
    let Ok(args) = args else {
        return usage(); // not even text
    };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        [] => demo(None),
        ["--svg", file] => demo(Some(file)),
        ["serve"] => serve("127.0.0.1:0"),
        ["serve", "--addr", addr] => serve(addr),
        ["get", ref args @ ..] => match parse_get(args) {
            Some((svg, addr, queries)) => get(addr, &queries, svg, false),
            None => return usage(),
        },
        ["--help" | "-h" | "help"] => {
            say(HELP);
            return ExitCode::SUCCESS;
        }
        _ => return usage(),
    };
    result.unwrap_or_else(|why| {
        complain(&format!("delayserver: {why}\n"));
        ExitCode::FAILURE
    })
}

fn usage() -> ExitCode {
    complain(HELP);
    ExitCode::from(2)
}

/// A file for the picture perhaps, an address, and queries.
fn parse_get<'a>(args: &[&'a str]) -> Option<(Option<&'a str>, &'a str, Vec<Query>)> {
    match args {
        ["--svg", file, addr, queries @ ..] => Some((Some(file), addr, parse_queries(queries)?)),
        [addr, queries @ ..] => Some((None, addr, parse_queries(queries)?)),
        [] => None,
    }
}

/// Pairs of a delay and a text, at least one.
fn parse_queries(args: &[&str]) -> Option<Vec<Query>> {
    let pairs = args.chunks(2).map(|pair| match pair {
        [delay, text] => Some(Query {
            delay_ms: delay.parse().ok()?,
            text: text.to_string(),
        }),
        _ => None,
    });
    pairs
        .collect::<Option<Vec<_>>>()
        .filter(|queries| !queries.is_empty())
}

fn demo(svg: Option<&str>) -> Result<ExitCode, String> {
    let (addr, server) = start_server("127.0.0.1:0")?;
    say(&format!(
        "A delay server on {addr}, and ten requests with delays of 1000 to 100 ms:\n\n"
    ));
    let registrator = server.registrator();
    let server = thread::Builder::new()
        .name("server".into())
        .spawn(|| server.run())
        .map_err(|error| error.to_string())?;

    // The longest delay first: so the order of the events is not the order of the requests.
    let queries: Vec<Query> = (1..=10)
        .rev()
        .map(|i| Query {
            delay_ms: i * 100,
            text: format!("after-{}-ms", i * 100),
        })
        .collect();
    let result = get(&addr, &queries, svg, true)?;

    registrator
        .close_loop()
        .map_err(|error| error.to_string())?;
    match server.join() {
        Ok(Ok(())) => Ok(result),
        Ok(Err(error)) => Err(format!("the server failed: {error}")),
        Err(_) => Err("the server panicked".into()),
    }
}

fn serve(addr: &str) -> Result<ExitCode, String> {
    let (addr, server) = start_server(addr)?;
    say(&format!("{addr}\nTry: curl http://{addr}/1000/hello\n"));
    let registrator = server.registrator();
    thread::spawn(move || {
        // What is typed is of no interest, only the end of it. An error ends it, too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = registrator.close_loop();
    });
    server.run().map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn start_server(addr: &str) -> Result<(String, Server), String> {
    let listener =
        TcpListener::bind(addr).map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    let server = Server::start(listener).map_err(|error| error.to_string())?;
    Ok((addr.to_string(), server))
}

fn get(
    addr: &str,
    queries: &[Query],
    svg: Option<&str>,
    is_verbose: bool,
) -> Result<ExitCode, String> {
    let cannot_write = |path, error| format!("cannot write {path}: {error}");
    // Before anybody waits for what could not be kept.
    if let Some(path) = svg {
        let mut options = File::options();
        let file = options.append(true).create(true).open(path);
        file.map_err(|error| cannot_write(path, error))?;
    }
    let record =
        client::fetch(addr, queries, is_verbose).map_err(|error| format!("{addr}: {error}"))?;
    let is_colored =
        io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    say(&format!(
        "\n{}",
        timeline::draw(queries, &record, is_colored)
    ));
    if let Some(path) = svg {
        let picture = picture::draw(queries, &record);
        fs::write(path, picture).map_err(|error| cannot_write(path, error))?;
    }
    match record.outcomes.iter().all(|outcome| outcome.answer.is_ok()) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// `print!` panics when nobody reads our output any more (`| head`).
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Likewise `eprint!`, when the disk is full to which the errors go.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
