//! Tests the example's HTTP parser with random requests and answers: `MINIMIO_HEADS` of each (default: 1,000). A test
//! that fails or panics prints the seed.

mod common;
#[allow(dead_code)]
#[path = "../examples/delayserver/http.rs"]
mod http;

use common::random::Random;
use http::{MAX_DELAY_MS, MAX_HEAD, Refusal, Request};
use std::panic;
use std::time::Duration;

const REQUESTS: [&str; 6] = [
    "GET /1000/hello HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    "GET /60000/h%C3%A9/%20/x?y=%25 HTTP/1.0\r\n\r\n",
    "GET /0/ HTTP/1.1\n\nand a body",
    "\r\nHEAD http://localhost/20/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST /1/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
];

const ANSWERS: [&str; 4] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404\r\nServer: x\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "HTTP/1.1 304 Not Modified\nContent-Length: 3\nContent-Length: 4\n\n",
];

/// Fragments that have a meaning for the parser.
const PARTS: [&str; 20] = [
    "GET",
    "HEAD",
    " ",
    "/",
    "//",
    "0",
    "60000",
    "60001",
    "18446744073709551616",
    "-1",
    "%",
    "%4",
    "%zz",
    "%0a",
    "HTTP/1.1",
    "HTTP/9",
    "\r\n",
    "\n",
    "\r",
    "\0",
];

fn head(good: &[&str], random: &mut Random) -> Vec<u8> {
    let mut head = match random.below(10) {
        0 => (0..random.below(200))
            .map(|_| random.below(256) as u8)
            .collect(),
        1..4 => (0..random.below(12))
            .flat_map(|_| random.pick(&PARTS).bytes())
            .collect(),
        _ => random.pick(good).as_bytes().to_vec(),
    };
    for _ in 0..random.below(4) {
        mutate(&mut head, random);
    }
    head
}

fn mutate(head: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(head.len() + 1);
    let to = at + random.below(head.len() - at + 1);
    match random.below(6) {
        0 => head.truncate(at),
        1 => drop(head.drain(at..to)),
        2 => head.insert(at, random.below(256) as u8),
        3 => drop(head.splice(at..at, random.pick(&PARTS).bytes())),
        4 => head
            .iter_mut()
            .skip(at)
            .take(1)
            .for_each(|byte| *byte ^= 1 << random.below(8)),
        // Pads the head to the maximum length, give or take a few bytes.
        _ => {
            let len = (MAX_HEAD + 4).saturating_sub(head.len() + random.below(10));
            head.splice(at..at, vec![b'x'; len]);
        }
    }
}

/// Parses as the server does: with each new piece, all bytes so far are parsed again, until there is an answer.
fn parse_in_pieces(head: &[u8], random: &mut Random) -> Result<Option<Request>, Refusal> {
    let mut len = 0;
    while len < head.len() {
        len += 1 + random.below((head.len() - len).min(1 + head.len() / 4));
        match http::parse(&head[..len]) {
            Ok(None) => (),
            answer => return answer,
        }
    }
    http::parse(head)
}

/// Numbers the outcomes: not complete, accepted, 400, 404, 405 and 431.
fn kind_of_request(random: &mut Random) -> usize {
    let head = head(&REQUESTS, random);
    let answer = http::parse(&head);
    let pieces = parse_in_pieces(&head, random);
    assert_eq!(pieces, answer, "{}", head.escape_ascii());
    assert_eq!(http::reply(&head, 0).is_some(), answer != Ok(None));
    match answer {
        Ok(None) => 0,
        Ok(Some(request)) => {
            assert!(request.delay <= Duration::from_millis(MAX_DELAY_MS.into()));
            let head = head.trim_ascii_start();
            assert!(head.starts_with(b"GET ") || head.starts_with(b"HEAD "));
            1
        }
        Err(Refusal { status, reason }) => {
            assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
            let statuses = ["400 ", "404 ", "405 ", "431 "];
            let at = statuses.iter().position(|start| status.starts_with(start));
            2 + at.unwrap_or_else(|| panic!("{status}"))
        }
    }
}

/// Numbers the outcomes: not complete, complete and not understood. Once the outcome is one of the last two, neither
/// more bytes nor the end of the stream changes it.
fn kind_of_answer(random: &mut Random) -> usize {
    let head = head(&ANSWERS, random);
    let whole = http::parse_response(&head, false);
    let part = http::parse_response(&head[..random.below(head.len() + 1)], false);
    assert!(
        part == whole || part == Ok(None),
        "{part:?} {}",
        head.escape_ascii()
    );
    let at_the_end = http::parse_response(&head, true);
    match whole {
        Ok(None) => 0,
        _ => {
            assert_eq!(at_the_end, whole, "{}", head.escape_ascii());
            1 + usize::from(whole.is_err())
        }
    }
}

/// Checks random heads, and that each outcome occurs often enough.
fn check<const KINDS: usize>(kind_of: fn(&mut Random) -> usize) {
    let count = std::env::var("MINIMIO_HEADS").map_or(1_000, |count| count.parse().unwrap());
    let mut seen = [0; KINDS];
    for seed in 0..count {
        let kind = panic::catch_unwind(|| kind_of(&mut Random::new(seed)));
        seen[kind.unwrap_or_else(|_| panic!("failed with seed {seed}"))] += 1;
    }
    println!("{seen:?}");
    assert!(
        seen.iter().all(|&times| times > count as usize / 200),
        "an outcome is too rare: {seen:?}"
    );
}

#[test]
fn every_head_gets_one_of_the_documented_answers() {
    check::<6>(kind_of_request);
}

#[test]
fn an_answer_does_not_depend_on_the_pieces_in_which_it_comes() {
    check::<3>(kind_of_answer);
}

/// Returns what a client receives that takes the response in random pieces.
fn sent(mut response: http::Response, random: &mut Random) -> Vec<u8> {
    let mut sent = Vec::new();
    while !response.rest().is_empty() {
        let n = 1 + random.below(response.rest().len());
        sent.extend_from_slice(&response.rest()[..n]);
        response.advance(n);
    }
    sent
}

#[test]
fn any_text_comes_back() {
    let mut random = Random::new(0);
    for _ in 0..1000 {
        let chars = (0..random.below(40)).map(|_| char::from_u32(random.below(0x500) as u32));
        let text: String = chars.flatten().collect();
        let delay_ms = random.below(MAX_DELAY_MS as usize + 1) as u32;
        let request = http::parse(&http::request("a:1", delay_ms, &text))
            .unwrap()
            .unwrap();
        assert_eq!(request.text, text.as_bytes());
        assert_eq!(request.delay, Duration::from_millis(delay_ms.into()));
        let dots = random.below(40_000);
        let response = sent(
            http::response(b"GET", "200 OK", text.as_bytes(), dots),
            &mut random,
        );
        let received = http::parse_response(&response, false);
        let body = text + &".".repeat(dots);
        assert_eq!(received, Ok(Some(("200 OK".into(), body.as_bytes()))));
        let cut = &response[..response.len() - 1];
        assert_eq!(http::parse_response(cut, true), Ok(None));
    }
}
