//! The book's story once more, with `async` and `await`: ten tasks in one thread connect, ask, and wait for their answers.
//! Then a task of the same thread is the server, too.
//!
//! Read `executor.rs`, then `net.rs`: together they are a whole runtime. `client.rs` has the tasks. The modules below are those
//! of the example `delayserver`.

mod client;
mod executor;
mod net;

#[path = "../delayserver/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "../delayserver/record.rs"]
mod record;
#[path = "../delayserver/server.rs"]
mod server;
#[path = "../delayserver/timeline.rs"]
mod timeline;

use client::{Query, ask_all, serve};
use executor::{block_on, spawn};
use record::Record;
use server::Server;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::{error, thread};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("async_await: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all requests were answered.
fn run() -> Result<bool, Box<dyn error::Error>> {
    // The longest delay first: so the order of the events is not the order of the requests.
    let query = |i: u32| Query {
        delay_ms: i * 100,
        text: format!("after-{}-ms", i * 100),
    };
    let queries: Rc<[Query]> = (1..=10).rev().map(query).collect();

    say("Ten tasks of one thread ask a server, which is in another thread:\n\n")?;
    let listener = minimio::TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let server = Server::new(listener, 0)?;
    let registrator = server.registrator();
    let thread = thread::Builder::new().name("server".into());
    let server = thread.spawn(|| server.run())?;
    let first = block_on(ask_all(addr, queries.clone()))?;
    registrator.close_loop()?;
    server.join().map_err(|_| "the server panicked")??;
    say(&timeline::draw(&queries, &first, false))?;

    say("\nThe same ten tasks, and the server is a task of the same thread:\n\n")?;
    let listener = minimio::TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let tasks = queries.clone();
    let second = block_on(async move {
        let listener = net::TcpListener::new(listener)?;
        spawn(serve(listener));
        Ok::<_, io::Error>(ask_all(addr, tasks).await)
    })??;
    say(&timeline::draw(&queries, &second, false))?;
    Ok(is_answered(&first) && is_answered(&second))
}

fn is_answered(record: &Record) -> bool {
    record.outcomes.iter().all(|outcome| outcome.answer.is_ok())
}

/// Unlike `print!`, does not panic when it cannot write. A reader that has closed its pipe (`| head`) is no error.
fn say(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Unlike `eprint!`, does not panic when it cannot write.
fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
