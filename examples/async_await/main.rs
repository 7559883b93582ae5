//! The book's story once more, with `async` and `await`: ten tasks in one thread connect, ask, and wait for their
//! answers. The story runs twice: first the server is another thread, then it is a task of the same thread.
//!
//! Read `executor.rs`, then `net.rs`: together they are a whole runtime. `client.rs` has the tasks. The modules below are those
//! of the example `delayserver`.

mod client;
mod executor;
mod net;

#[path = "../delayserver/http.rs"]
mod http;
#[path = "../delayserver/output.rs"]
mod output;
#[allow(dead_code)]
#[path = "../delayserver/record.rs"]
mod record;
#[path = "../delayserver/server.rs"]
mod server;
#[path = "../delayserver/timeline.rs"]
mod timeline;

use client::{ask_all, serve};
use executor::{block_on, spawn};
use output::{complain, say};
use record::{Query, Record, ten_queries};
use server::Server;
use std::io;
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
    let queries: Rc<[Query]> = ten_queries().collect();

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
