//! The book's program, complete: a server that answers late, and a client that waits for many answers in one thread.
//!
//! Read `client.rs` first (it is the book's story), then `server.rs`; `args.rs`, `http.rs`, `record.rs`, `timeline.rs`
//! and `picture.rs` are plumbing.

mod args;
mod client;
mod http;
mod picture;
mod record;
mod server;
mod timeline;

use args::{HELP, Job, TIMEOUT};
use client::Query;
use server::Server;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, thread};

fn main() -> ExitCode {
    let args: Result<Vec<String>, OsString> =
        env::args_os().skip(1).map(OsString::into_string).collect();
    let job = match &args {
        Ok(args) => args::parse(&args.iter().map(String::as_str).collect::<Vec<_>>()),
        Err(arg) => Err(format!("this is not text: `{}`", arg.to_string_lossy())),
    };
    let (why, code) = match job.map(run) {
        Ok(Ok(code)) => return code,
        Ok(Err(why)) => (why, 1),
        Err(why) => (format!("{why}\n\n{}", HELP.trim_end()), 2),
    };
    complain(&format!("delayserver: {why}\n"));
    ExitCode::from(code)
}

fn run(job: Job) -> Result<ExitCode, String> {
    match job {
        Job::Demo { svg } => demo(svg),
        Job::Serve { addr } => serve(addr),
        Job::Get {
            svg,
            timeout,
            addr,
            queries,
        } => get(addr, &queries, timeout, svg, false),
        Job::Help => {
            say(HELP);
            Ok(ExitCode::SUCCESS)
        }
    }
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
    let result = get(&addr, &queries, TIMEOUT, svg, true)?;

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

/// All addresses of a name.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>, String> {
    let addrs = addr.to_socket_addrs();
    Ok(addrs.map_err(|error| format!("{addr}: {error}"))?.collect())
}

fn start_server(addr: &str) -> Result<(String, Server), String> {
    let listener = TcpListener::bind(&resolve(addr)?[..])
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    let server = Server::start(listener).map_err(|error| error.to_string())?;
    Ok((addr.to_string(), server))
}

fn get(
    addr: &str,
    queries: &[Query],
    timeout: Duration,
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
    let record = client::fetch(addr, queries, timeout, is_verbose)?;
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
