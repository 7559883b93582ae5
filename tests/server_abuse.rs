//! Most of many clients misuse the server at the same time. Honest ones get correct answers before, during and after
//! that.
//!
//! `ABUSE_CLIENTS` is the number of clients that wait (default: 1,000).

mod common;

use common::PATIENCE;
use common::delayserver::{Answer, Server, get, rest};
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Sends one request after the other until `is_over`. Returns the number of answers.
fn honest_client(server: &Server, is_over: &AtomicBool) -> usize {
    let mut answers = 0;
    while !is_over.load(SeqCst) {
        let (text, asked) = (format!("honest-{answers}"), Instant::now());
        let answer = server.answer_to(get(20, &text).as_bytes());
        assert!(answer.is(200, &text), "{answer:?}");
        assert!(asked.elapsed() >= Duration::from_millis(20));
        answers += 1;
    }
    answers
}

/// Many clients send their heads byte by byte, at the same time.
fn slow_heads(server: &Server) {
    let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for byte in get(10, "slow").bytes() {
        for stream in &mut streams {
            stream.write_all(&[byte]).unwrap();
        }
    }
    for stream in streams {
        assert!(Answer::read(stream).is(200, "slow"));
    }
}

fn garbage(server: &Server) {
    let bytes: Vec<u8> = (0..64 << 10).map(|at| b'!' + (at % 90) as u8).collect();
    for _ in 0..20 {
        assert_eq!(server.answer_to(&bytes).status, 431);
        assert_eq!(server.answer_to(b"\x16\x03\x01\x02\n").status, 400);
    }
}

/// Clients send nothing or half a request. Then they close the connection, except the last one, which ends its
/// direction.
fn half_open(server: &Server, count: usize) {
    for start in ["", "GET", "GET /5/x HTTP/1.1\r\n"] {
        let mut streams: Vec<_> = (0..count).map(|_| server.connect()).collect();
        for stream in &mut streams {
            stream.write_all(start.as_bytes()).unwrap();
        }
        let last = streams.pop().unwrap();
        assert_eq!(rest(last), b"", "{start:?}");
    }
}

/// Whether the connection is open and has no data.
fn is_waiting(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let nothing = stream.peek(&mut [0]).map_err(|error| error.kind());
    stream.set_nonblocking(false).unwrap();
    nothing == Err(ErrorKind::WouldBlock)
}

/// How many descriptors the server has open, if the system can tell.
fn open_descriptors(server: &Server) -> Option<usize> {
    let fds = fs::read_dir(format!("/proc/{}/fd", server.child.id())).ok()?;
    Some(fds.count())
}

#[test]
fn whoever_is_honest_is_served_all_the_time() {
    let count = std::env::var("ABUSE_CLIENTS").map_or(1000, |count| count.parse().unwrap());
    common::os::allow_open_handles(count + 400);
    let server = Server::start();
    assert!(
        server
            .answer_to(get(1, "before").as_bytes())
            .is(200, "before")
    );
    let before = open_descriptors(&server);

    let is_over = AtomicBool::new(false);
    let answers = thread::scope(|threads| {
        let honest = threads.spawn(|| honest_client(&server, &is_over));
        let abuse = threads.spawn(|| {
            let mut waiting: Vec<TcpStream> = server.ask_often(count, 60_000);
            let jobs = [
                threads.spawn(|| slow_heads(&server)),
                threads.spawn(|| garbage(&server)),
                threads.spawn(|| half_open(&server, 50)),
            ];
            for job in jobs {
                job.join().unwrap();
            }
            // All of them wait, and the server answers a new client.
            assert!(
                server
                    .answer_to(get(1, "during").as_bytes())
                    .is(200, "during")
            );
            assert!(waiting.iter().all(is_waiting));
            // All of them reset their connections. Some send more bytes first.
            for stream in waiting.iter_mut().step_by(3) {
                stream.write_all(&[b'x'; 1000]).unwrap();
            }
            waiting.iter().for_each(common::os::reset_when_closed);
            drop(waiting);
            // Others close their connections. The server cannot tell that from the end of one direction, so it keeps
            // them until their answers are due.
            drop(server.ask_often(count / 10, 500));
        });
        let result = abuse.join();
        is_over.store(true, SeqCst);
        let answers = honest.join().unwrap();
        result.unwrap();
        answers
    });
    assert!(answers > 0);
    println!("{count} clients waited, and honest ones got {answers} answers in the meantime");

    assert!(
        server
            .answer_to(get(1, "after").as_bytes())
            .is(200, "after")
    );
    let give_up = Instant::now() + PATIENCE;
    while open_descriptors(&server) > before {
        assert!(
            Instant::now() < give_up,
            "the server still has descriptors of clients"
        );
        thread::yield_now();
    }
}
