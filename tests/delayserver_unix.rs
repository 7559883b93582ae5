//! Tests the example's program with low limits, with signals, and with a non-blocking standard input. Only Unix has
//! these.
#![cfg(unix)]

mod common;

use common::delayserver::{Answer, Server, command, get, own_words, rest, stderr, stdout};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::{env, fs, thread};

/// The program with a limit of `ulimit`. It ignores `SIGXFSZ`, so a file that exceeds the limit is an error.
fn limited(limit: &str, args: &[&str]) -> Command {
    let program = command(args);
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ && ulimit {limit} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script]);
    shell.arg(program.get_program()).args(program.get_args());
    shell.stderr(Stdio::piped());
    shell
}

#[test]
fn out_of_descriptors_it_serves_those_it_has_and_recovers() {
    let mut server = Server::start_by(limited("-n 32", &["serve"]));
    let mut stderr = server.child.stderr.take().unwrap();
    // Read while the server runs, because it would block on a full pipe.
    let said = thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| own_words(&said))
    });
    // There are more clients than descriptors. An accepted client waits 300 ms, then its descriptor is free for another
    // one.
    let clients: Vec<_> = (0..80)
        .map(|at| server.ask(300, &format!("{at}")))
        .collect();
    for (at, client) in clients.into_iter().enumerate() {
        assert!(Answer::read(client).is(200, &at.to_string()));
    }
    // A client that has its answer and stays connected is disconnected after a while.
    let mut stay: Vec<_> = (0..40).map(|_| server.ask(0, "x")).collect();
    for client in &mut stay {
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(b"x"));
    }
    assert!(server.answer_to(get(1, "here").as_bytes()).is(200, "here"));
    drop(stay);
    // A client that resets its connection frees its descriptor at once, even if its answer is not due yet.
    for _ in 0..3 {
        let clients: Vec<_> = (0..40).map(|_| server.ask(60_000, "never")).collect();
        clients.iter().for_each(common::os::reset_when_closed);
    }
    // A client that closes its connection may only have ended its own direction, so its descriptor is free when its
    // answer is due.
    let clients: Vec<_> = (0..40).map(|_| server.ask(100, "never")).collect();
    drop(clients);
    assert!(server.answer_to(get(1, "here").as_bytes()).is(200, "here"));

    assert!(server.stop().success());
    let said = said.join().unwrap().unwrap();
    assert!(said.contains("cannot accept, and will try again"), "{said}");
    assert!(
        said.lines()
            .all(|line| line.starts_with("delayserver: cannot accept")),
        "{said}"
    );
}

/// The server continues to work if it cannot write to standard error.
#[test]
fn nobody_need_read_its_complaints() {
    let mut server = Server::start_by(limited("-n 32", &["serve"]));
    drop(server.child.stderr.take());
    let clients: Vec<_> = (0..40).map(|_| server.ask(100, "x")).collect();
    for client in clients {
        assert!(Answer::read(client).is(200, "x"));
    }
    assert!(server.answer_to(get(1, "here").as_bytes()).is(200, "here"));
}

#[test]
fn out_of_descriptors_the_client_asks_for_what_it_can() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let args = ["get", &addr].into_iter().chain(["100", "here"].repeat(40));
    let output = limited("-n 32", &args.collect::<Vec<_>>())
        .output()
        .unwrap();
    assert_eq!(stderr(&output), "");
    let rows = stdout(&output).lines().filter(|line| line.contains(" |"));
    let (answered, failed): (Vec<_>, Vec<_>) =
        rows.skip(1).partition(|row| row.ends_with("| here"));
    assert_eq!(answered.len() + failed.len(), 40);
    assert!(answered.len() > 10, "{}", stdout(&output));
    assert!(failed.len() > 10, "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
}

/// The limit on files is 512 bytes, or 1024 in a shell that counts in KiB.
#[test]
fn a_picture_that_cannot_be_written_whole_leaves_things_as_they_were() {
    let server = Server::start();
    let addr = server.addr.to_string();
    let folder = env::temp_dir().join(format!("minimio-{}-folder", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let names = || {
        let entries = fs::read_dir(&folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::write(folder.join("old.svg"), "an earlier one").unwrap();
    for name in ["new.svg", "old.svg"] {
        let path = folder.join(name);
        let args = ["get", "--svg", path.to_str().unwrap(), &addr, "1", "x"];
        let output = limited("-f 1", &args).output().unwrap();
        let complaint = stderr(&output);
        let begin = format!("delayserver: cannot write {}: ", path.display());
        assert!(complaint.starts_with(&begin), "{complaint}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(names(), ["old.svg"]);
    }
    let old = fs::read_to_string(folder.join("old.svg")).unwrap();
    assert_eq!(old, "an earlier one");
    fs::remove_dir_all(&folder).unwrap();
}

/// An input that has no data at the moment has not ended.
#[test]
fn its_input_may_be_nonblocking() {
    let (input, far_end) = UnixStream::pair().unwrap();
    input.set_nonblocking(true).unwrap();
    let mut program = command(&["serve"]);
    program.stdin(OwnedFd::from(input));
    let mut server = Server::try_start_by(program).unwrap();
    for _ in 0..3 {
        assert!(server.answer_to(get(200, "x").as_bytes()).is(200, "x"));
    }
    (&far_end).write_all(b"typed").unwrap();
    drop(far_end);
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn an_interrupt_from_the_keyboard_ends_it() {
    let mut program = command(&["serve"]);
    common::os::heed_interrupt(&mut program);
    let mut server = Server::start_by(program);
    let waiting = server.ask(60_000, "never");
    assert!(server.answer_to(get(0, "x").as_bytes()).is(200, "x"));
    let pid = server.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(rest(waiting), b"");
    let status = server.child.wait().unwrap();
    // The signal itself ends the program. So a shell can tell, and stops its script too.
    assert_eq!(status.signal(), Some(common::os::SIGINT), "{status}");
    assert!(
        std::net::TcpListener::bind(server.addr).is_ok(),
        "the address is still in use"
    );
}
