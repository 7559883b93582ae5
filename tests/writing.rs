//! After the event, `write`: a stream is writable when its send buffer has room, and only then.

mod common;

use common::{Loop, pair, within_patience};
use minimio::{Interests, TcpStream, Token};
use std::io::{ErrorKind, Read, Write};

/// Writes until there is no more room. Returns how many bytes that took.
fn fill(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match stream.write(&[7; 64 << 10]) {
            Ok(n) => written += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return written;
            }
        }
    }
}

#[test]
fn a_stream_with_room_is_writable_at_once() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop
        .registrator
        .register(&stream, 1, Interests::WRITABLE)
        .unwrap();
    event_loop.expect(&[1]);
}

#[test]
fn a_full_stream_is_writable_when_its_peer_has_read() {
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    let n = fill(&stream);
    event_loop
        .registrator
        .register(&stream, 1, Interests::WRITABLE)
        .unwrap();
    event_loop.expect_none();
    peer.read_exact(&mut vec![0; n]).unwrap();
    event_loop.expect(&[1]);
}
