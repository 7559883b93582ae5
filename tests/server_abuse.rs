//! Many clients at once, and most of them mean no good: the others get the right answers before, meanwhile and after.
//!
//! `ABUSE_CLIENTS` says how many there are (1,000, if it does not).

mod common;

use common::PATIENCE;
use common::delayserver::{Answer, Server, get, rest};
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Asks again and again, until it is over; how often it was answered.
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

/// Heads that come byte by byte, all at the same time.
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

/// Clients that say nothing, or half of it, and leave; in whichever way.
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

/// Nothing has come, and the connection is there.
fn is_waiting(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let nothing = stream.peek(&mut [0]).map_err(|error| error.kind());
    stream.set_nonblocking(false).unwrap();
    nothing == Err(ErrorKind::WouldBlock)
}

/// Where the system tells, how many descriptors the server has open.
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
            // All of them wait, and who comes now is served.
            assert!(
                server
                    .answer_to(get(1, "meanwhile").as_bytes())
                    .is(200, "meanwhile")
            );
            assert!(waiting.iter().all(is_waiting));
            // All of them reset the connection; some send more before.
            for stream in waiting.iter_mut().step_by(3) {
                stream.write_all(&[b'x'; 1000]).unwrap();
            }
            waiting.iter().for_each(common::os::reset_when_closed);
            drop(waiting);
            // Others close it, which looks as if they only sent no more: they are kept until their answer is due.
            drop(server.ask_often(count / 10, 500));
        });
        let result = abuse.join();
        is_over.store(true, SeqCst);
        let answers = honest.join().unwrap();
        result.unwrap();
        answers
    });
    assert!(answers > 0);
    println!("{count} clients waited, and {answers} honest ones were answered meanwhile");

    assert!(
        server
            .answer_to(get(1, "after").as_bytes())
            .is(200, "after")
    );
    let give_up = Instant::now() + PATIENCE;
    while open_descriptors(&server) > before {
        assert!(Instant::now() < give_up, "of somebody something is left");
        thread::yield_now();
    }
}
