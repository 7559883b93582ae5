//! The book's program, complete: a server that answers late, and a client that waits for many answers in one thread.
//!
//! Read `client.rs` first, because it follows the book, then `server.rs`. `args.rs`, `http.rs`, `record.rs`,
//! `timeline.rs`, `picture.rs` and `output.rs` are helpers.

mod args;
mod client;
mod http;
mod output;
mod picture;
mod record;
mod server;
mod timeline;

use args::{HELP, Job, TIMEOUT};
use minimio::TcpListener;
use output::{complain, say};
use record::{Query, ten_queries};
use server::Server;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

fn main() -> ExitCode {
    tell_columns();
    let args: Result<Vec<String>, OsString> =
        env::args_os().skip(1).map(OsString::into_string).collect();
    let job = match &args {
        Ok(args) => args::parse(&args.iter().map(String::as_str).collect::<Vec<_>>()),
        Err(arg) => Err(format!("not valid Unicode: `{}`", arg.to_string_lossy())),
    };
    let (why, code) = match job.map(run) {
        Ok(Ok(code)) => return code,
        Ok(Err(why)) => (why.to_string(), 1),
        Err(why) => (format!("{why}\n\n{}", HELP.trim_end()), 2),
    };
    complain(&format!("delayserver: {why}\n"));
    ExitCode::from(code)
}

/// What the columns of the trace are. (The trace goes to standard error, and so does this line.)
fn tell_columns() {
    if cfg!(feature = "trace") {
        complain("    returned  thread       call(arguments) = result  (how long it took)\n");
    }
}

fn run(job: Job) -> Result<ExitCode, Box<dyn Error>> {
    match job {
        Job::Demo { svg } => demo(svg),
        Job::Serve { addr, size } => serve(addr, size),
        Job::Get {
            svg,
            timeout,
            addr,
            queries,
        } => {
            check_port(addr)?;
            get(addr, queries.into(), timeout, svg, false)
        }
        Job::Help => {
            say(HELP)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn demo(svg: Option<&str>) -> Result<ExitCode, Box<dyn Error>> {
    let (listener, addr) = listen("127.0.0.1:0")?;
    let server = Server::new(listener, 0)?;
    let registrator = server.registrator();
    let server = spawn("server", || server.run())?;
    // The trace names threads: this says which of them are the server, and which the client.
    say(&format!(
        "A delay server on {addr}, in the thread `server`.\n\
         Ten requests of 1000 to 100 ms, from the threads `main` and `reactor`:\n\n"
    ))?;
    let result = get(&addr, ten_queries().collect(), TIMEOUT, svg, true);

    match registrator.close_loop() {
        // If the loop is already closed, the server's result says why.
        Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
        _ => (),
    }
    match server.join() {
        Ok(Ok(())) => result,
        Ok(Err(error)) => Err(format!("the server failed: {error}").into()),
        Err(_) => Err("the server panicked".into()),
    }
}

fn serve(addr: &str, size: usize) -> Result<ExitCode, Box<dyn Error>> {
    let (listener, addr) = listen(addr)?;
    let server = Server::new(listener, size)?;
    let registrator = server.registrator();
    spawn("input", move || {
        wait_for_the_end_of_the_input();
        let _ = registrator.close_loop();
    })?;
    say(&format!("{addr}\nTry: curl http://{addr}/1000/hello\n"))?;
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

/// Returns when the standard input has ended or failed. `WouldBlock` is neither: a program that shares the terminal or
/// the pipe may have made it non-blocking, and `std` cannot wait for such an input. So this function
/// reads again from time to time.
fn wait_for_the_end_of_the_input() {
    while let Err(error) = io::copy(&mut io::stdin(), &mut io::sink()) {
        if error.kind() != ErrorKind::WouldBlock {
            break;
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn listen(addr: &str) -> Result<(TcpListener, String), String> {
    check_port(addr)?;
    let cannot = |error| format!("cannot listen on {addr}: {error}");
    let listener = TcpListener::bind(addr).map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    Ok((listener, addr.to_string()))
}

fn check_port(addr: &str) -> Result<(), String> {
    let port = addr.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("`{addr}` has no port: write HOST:PORT")),
    }
}

/// Returns all addresses of a name.
fn resolve(addr: &str) -> Result<Vec<SocketAddr>, String> {
    let addrs = addr.to_socket_addrs().map_err(|error| error.to_string());
    Ok(addrs?.collect())
}

/// Like `thread::spawn`, but where that panics, this returns an error that names the thread.
fn spawn<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let thread = thread::Builder::new().name(name.into()).spawn(job);
    thread.map_err(|error| {
        let why = format!("cannot start the thread `{name}`: {error}");
        io::Error::new(error.kind(), why)
    })
}

fn get(
    addr: &str,
    queries: Arc<[Query]>,
    timeout: Duration,
    svg: Option<&str>,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let cannot_write = |path, error| format!("cannot write {path}: {error}");
    // Checked before the requests, so that the user does not wait for a picture that cannot be written.
    if let Some(path) = svg {
        check_file(path).map_err(|error| cannot_write(path, error))?;
    }
    let record = client::fetch(addr, queries.clone(), timeout, is_verbose)?;
    let is_colored =
        io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    say(&format!(
        "\n{}",
        timeline::draw(&queries, &record, is_colored)
    ))?;
    if let Some(path) = svg {
        let picture = picture::draw(&queries, &record);
        write_file(path, &picture).map_err(|error| cannot_write(path, error))?;
    }
    match record.outcomes.iter().all(|outcome| outcome.answer.is_ok()) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// Fails if the file could not be written. Leaves no file where there was none.
fn check_file(path: &str) -> io::Result<()> {
    let is_new = fs::symlink_metadata(path).is_err();
    File::options().append(true).create(true).open(path)?;
    match is_new {
        true => fs::remove_file(path),
        false => Ok(()),
    }
}

/// Writes a new file and renames it to `path`, so that a full disk leaves the earlier file unchanged.
fn write_file(path: &str, text: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|file| !file.is_file()) {
        return fs::write(path, text); // a device or a link, which must not be replaced
    }
    let part = format!("{path}.part");
    let result = fs::write(&part, text).and_then(|()| fs::rename(&part, path));
    result.inspect_err(|_| drop(fs::remove_file(&part)))
}
