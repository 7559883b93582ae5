//! Runs the example's program as its users do.

use super::PATIENCE;
use std::env::{self, consts::EXE_SUFFIX};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};

pub fn command(args: &[&str]) -> Command {
    example("delayserver", args)
}

/// The program that `cargo test` has built beside this one. (`cargo test --test NAME` builds no example.)
pub fn example(name: &str, args: &[&str]) -> Command {
    // Not `current_exe`, which is the emulator's, if there is one.
    let tests = PathBuf::from(env::args_os().next().expect("the program's own name"));
    let folder = tests.ancestors().nth(2).expect("the folder above `deps`");
    let program = folder.join(format!("examples/{name}{EXE_SUFFIX}"));
    assert!(
        program.exists(),
        "not there: build it by `cargo build --example {name}`"
    );
    let mut command = by_runner(program.into_os_string());
    command.args(args);
    command
}

/// Returns the command that runs a program of ours. If the program is for another processor, the variable
/// `DELAYSERVER_RUNNER` names the emulator.
pub fn by_runner(program: OsString) -> Command {
    let runner = env::var("DELAYSERVER_RUNNER").unwrap_or_default();
    let mut words: Vec<OsString> = runner.split_whitespace().map(Into::into).collect();
    words.push(program);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Runs one test of this program in a new process, and returns what the process writes to its standard error.
pub fn standard_error_of(test: &str) -> String {
    let program = env::args_os().next().expect("the program's own name");
    let output = by_runner(program)
        .args(["--exact", test, "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .expect("this program");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

pub fn run(args: &[&str]) -> Output {
    command(args)
        .stdin(Stdio::null())
        .output()
        .expect("delayserver")
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    own_words(&output.stderr)
}

/// The program's own messages, without the lines of the feature `trace`.
pub fn own_words(stderr: &[u8]) -> String {
    let is_told = |line: &str| {
        let ms = line.split_once(" ms  ").map(|parts| parts.0.trim());
        let is_call = ms.is_some_and(|ms| ms.parse::<f64>().is_ok());
        cfg!(feature = "trace") && (is_call || line.trim_start().starts_with("returned  thread"))
    };
    let lines = std::str::from_utf8(stderr).expect("UTF-8").lines();
    lines
        .filter(|line| !is_told(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A `delayserver serve` that is killed when the test ends.
pub struct Server {
    pub child: Child,
    pub addr: SocketAddr,
    stdin: Option<ChildStdin>,
}

impl Server {
    pub fn start() -> Server {
        Server::start_by(command(&["serve"]))
    }

    pub fn start_by(mut command: Command) -> Server {
        command.stdin(Stdio::piped());
        Server::try_start_by(command).expect("delayserver serve ended at once")
    }

    /// Returns `None` if the program ended before it listened.
    pub fn try_start_by(mut command: Command) -> Option<Server> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("delayserver serve");
        let stdin = child.stdin.take();
        let mut first_line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        stdout.read_line(&mut first_line).expect("its first line");
        if first_line.is_empty() {
            let _ = child.wait();
            return None;
        }
        let addr = first_line.trim().parse().expect("its address");
        Some(Server { child, addr, stdin })
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("connect");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set_read_timeout");
        stream
    }

    pub fn ask(&self, delay_ms: u32, text: &str) -> TcpStream {
        let mut stream = self.connect();
        let request = get(delay_ms, text);
        stream.write_all(request.as_bytes()).expect("write");
        stream
    }

    /// The same for many clients. From time to time one more client waits for an immediate answer. After that, the
    /// server has accepted all earlier clients, and its queue of connections, which is short on some systems, is empty.
    pub fn ask_often(&self, count: usize, delay_ms: u32) -> Vec<TcpStream> {
        let ask = |at: usize| {
            if at % 100 == 99 {
                assert!(self.answer_to(get(0, "x").as_bytes()).is(200, "x"));
            }
            self.ask(delay_ms, &at.to_string())
        };
        (0..count).map(ask).collect()
    }

    /// Sends a request, and reads the answer.
    pub fn answer_to(&self, request: &[u8]) -> Answer {
        Answer::read(self.send(request))
    }

    pub fn send(&self, request: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        // The server may answer and close the connection before it has received everything.
        let _ = stream.write_all(request);
        stream
    }

    /// Closes the server's standard input, and waits until the server has exited.
    pub fn stop(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().expect("wait")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(delay_ms: u32, text: &str) -> String {
    format!("GET /{delay_ms}/{text} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A response, up to the end of the stream.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub length: usize,
    pub body: String,
}

impl Answer {
    pub fn read(stream: TcpStream) -> Answer {
        let answer = Answer::read_head(stream);
        assert_eq!(answer.length, answer.body.len(), "{answer:?}");
        answer
    }

    /// Reads the answer to HEAD, which has a length but no body.
    pub fn read_head(mut stream: TcpStream) -> Answer {
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("an answer");
        let (head, body) = response
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no head: {response:?}"));
        let (status_line, fields) = head.split_once("\r\n").expect("header fields");
        let status = status_line.strip_prefix("HTTP/1.1 ").expect("HTTP/1.1")[..3]
            .parse()
            .expect("a status");
        let length: usize = fields
            .lines()
            .find_map(|field| field.strip_prefix("Content-Length: "))
            .expect("Content-Length")
            .parse()
            .expect("a length");
        assert!(
            fields.lines().any(|field| field == "Connection: close"),
            "{response:?}"
        );
        Answer {
            status,
            head: head.into(),
            length,
            body: body.into(),
        }
    }

    pub fn is(&self, status: u16, body: &str) -> bool {
        self.status == status && self.body == body
    }
}

/// Ends our direction, and returns what the server sends until it closes or resets the connection.
pub fn rest(mut stream: TcpStream) -> Vec<u8> {
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => rest,
    }
}
