//! After its event, a stream is read: all data arrives in order, and then the stream tells how it ended.

mod common;

use common::os::duplicate;
use common::{
    Loop, byte_at, pair, readable_pair, reset, wait_for_data_unless_lent, within_patience,
};
use minimio::{Interests, TcpStream};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{self, Shutdown};
use std::thread;

/// Bytes whose period is a prime number, so that no buffer size is a multiple of it.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(byte_at).collect()
}

/// Reads as a fair server does, until `WouldBlock` or until it has its share, and then registers for the next event.
fn read_to_end_by_events(stream: &mut TcpStream, chunk: usize) -> Vec<u8> {
    /// Slightly more than a page. On Windows a stream lends a buffer of one page, so a share exceeds it.
    const SHARE: usize = 4096 + 32;
    let mut event_loop = Loop::new();
    let (mut received, mut buffer) = (Vec::new(), vec![0; chunk]);
    loop {
        event_loop.register(stream, 1);
        assert_eq!(event_loop.wait(), [1]);
        let enough = received.len() + SHARE;
        while received.len() < enough {
            match stream.read(&mut buffer) {
                Ok(0) => return received,
                Ok(n) => received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn much_data_comes_through_reads_of_any_size() {
    // Small reads get less data, because each of them costs a system call.
    for (chunk, len) in [(1, 256 << 10), (7, 1 << 20), (4096, 4 << 20)] {
        let (mut stream, mut peer) = pair();
        stream.set_nonblocking(true).unwrap();
        let writer = thread::spawn(move || peer.write_all(&pattern(len)));
        let received = read_to_end_by_events(&mut stream, chunk);
        writer.join().unwrap().unwrap();
        assert!(
            received == pattern(len),
            "wrong data: {} bytes in reads of {chunk}",
            received.len()
        );
    }
}

#[test]
fn one_read_for_each_event_is_enough() {
    const LEN: usize = 64 << 10;
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    let writer = thread::spawn(move || peer.write_all(&pattern(LEN)));
    let (mut received, mut buffer) = (Vec::new(), [0; 1000]);
    loop {
        event_loop.register(&stream, 1);
        assert_eq!(event_loop.wait(), [1]);
        // The stream is in blocking mode, but this read does not block, because the event has announced data.
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => received.extend_from_slice(&buffer[..n]),
        }
    }
    writer.join().unwrap().unwrap();
    assert!(received == pattern(LEN));
}

/// The book's shortcut: after one event, a blocking read collects everything up to the end of the stream.
#[test]
fn a_blocking_stream_can_be_read_to_its_end_after_one_event() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    peer.write_all(b"first, ").unwrap();
    event_loop.expect(&[1]);
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    });
    peer.write_all(&b"then ".repeat(2000)).unwrap();
    peer.write_all(b"last").unwrap();
    drop(peer);
    let text = within_patience(|| reader.join()).unwrap().unwrap();
    assert_eq!(text, format!("first, {}last", "then ".repeat(2000)));
}

#[test]
fn a_nonblocking_stream_says_would_block() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    stream.set_nonblocking(true).unwrap();
    assert_eq!(
        stream.read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    // The same holds while the stream is registered, and after its event.
    event_loop.register(&stream, 1);
    assert_eq!(
        stream.read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    peer.write_all(b"abc").unwrap();
    event_loop.expect(&[1]);
    let mut text = [0; 8];
    assert_eq!(stream.read(&mut text).unwrap(), 3);
    assert_eq!(
        stream.read(&mut text).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(&text[..3], b"abc");
}

#[test]
fn a_blocking_read_waits_for_data_whether_registered_or_not() {
    for is_registered in [false, true] {
        let mut event_loop = Loop::new();
        let (mut stream, mut peer) = pair();
        if is_registered {
            event_loop.register(&stream, 1);
        }
        let (sender, started) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            sender.send(()).unwrap();
            let mut text = [0; 3];
            stream.read_exact(&mut text).map(|()| (text, stream))
        });
        started.recv().unwrap();
        for byte in b"abc" {
            peer.write_all(&[*byte]).unwrap();
        }
        let (text, stream) = within_patience(|| reader.join()).unwrap().unwrap();
        assert_eq!(&text, b"abc");
        if is_registered {
            // The registration has exactly one event, either because of the bytes that were read or because of this
            // one.
            peer.write_all(b"!").unwrap();
            event_loop.expect(&[1]);
        }
        drop(stream);
    }
}

/// Each read uses the mode that the stream has at that time, whether registered or not.
#[test]
fn the_mode_may_change_at_any_time() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    stream.set_nonblocking(true).unwrap();
    let nothing_yet = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    let writer = thread::spawn(move || peer.write_all(b"!").map(|()| peer));
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
    let mut peer = writer.join().unwrap().unwrap();
    stream.set_nonblocking(true).unwrap();
    event_loop.register(&stream, 2);
    let nothing_yet = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing_yet.kind(), ErrorKind::WouldBlock);
    peer.write_all(b"!").unwrap();
    // On a BSD, the event may be the one for the byte that was read above.
    event_loop.expect(&[2]);
    wait_for_data_unless_lent(&stream);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn the_end_of_the_stream_is_zero_bytes_every_time() {
    for is_registered in [false, true] {
        let mut event_loop = Loop::new();
        let (mut stream, mut peer) = pair();
        peer.write_all(b"end").unwrap();
        drop(peer);
        if is_registered {
            event_loop.register(&stream, 1);
            event_loop.expect(&[1]);
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "end");
        for _ in 0..3 {
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    }
}

#[test]
fn a_reset_is_an_event_and_an_error() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    event_loop.register(&stream, 1);
    reset(peer);
    event_loop.expect(&[1]);
    assert_eq!(
        stream.read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[test]
fn a_reset_that_came_before_is_an_event_and_an_error() {
    let mut event_loop = Loop::new();
    let (mut stream, peer) = pair();
    reset(peer);
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
    match stream.read(&mut [0; 8]) {
        // Wine loses a reset that arrives while no receive is in flight. Then it reports the end of the stream, even to
        // `std`.
        Ok(n) => assert!(cfg!(windows) && n == 0, "{n} bytes"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// On Windows, the packet that a read needs may be in the port behind many packets that are for `poll`.
#[test]
fn a_read_finds_its_data_behind_many_events() {
    let event_loop = Loop::new();
    let others: Vec<_> = (1..=150).map(|token| (token, readable_pair())).collect();
    for (token, (other, _)) in &others {
        event_loop.register(other, *token);
    }
    let (mut stream, _peer) = readable_pair();
    stream.set_nonblocking(true).unwrap();
    event_loop.register(&stream, 0);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn an_empty_buffer_reads_nothing() {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    peer.write_all(b"!").unwrap();
    event_loop.register(&stream, 1);
    event_loop.expect(&[1]);
    assert_eq!(stream.read(&mut []).unwrap(), 0);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn one_thread_may_read_while_another_writes() {
    const LEN: usize = 1 << 20;
    let (stream, mut peer) = pair();
    let echo = thread::spawn(move || {
        let mut reader = peer.try_clone()?;
        io::copy(&mut reader, &mut peer)?;
        peer.shutdown(Shutdown::Write)
    });
    let received = thread::scope(|threads| {
        threads.spawn(|| {
            (&stream).write_all(&pattern(LEN)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).unwrap();
        received
    });
    echo.join().unwrap().unwrap();
    assert!(received == pattern(LEN));
}

#[test]
fn two_threads_reading_one_stream_share_its_bytes() {
    const LEN: usize = 256 << 10;
    let mut event_loop = Loop::new();
    let (stream, mut peer) = pair();
    event_loop.register(&stream, 1);
    let writer = thread::spawn(move || peer.write_all(&vec![1; LEN]));
    event_loop.expect(&[1]);
    let count = || {
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).unwrap();
        assert!(received.iter().all(|&byte| byte == 1));
        received.len()
    };
    let total = thread::scope(|threads| {
        let readers = [threads.spawn(count), threads.spawn(count)];
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum::<usize>()
    });
    writer.join().unwrap().unwrap();
    assert_eq!(total, LEN);
}

#[test]
fn connecting_to_nobody_is_an_error() {
    let (_taken, addr) = common::nobody();
    assert_eq!(
        TcpStream::connect(addr).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn a_stream_that_connects_is_like_one_that_was_accepted() {
    let (listener, addr) = common::listen();
    let mut stream = TcpStream::connect(addr).unwrap();
    let mut accepted = TcpStream::from(listener.accept().unwrap().0);
    let mut event_loop = Loop::new();
    event_loop
        .registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    event_loop
        .registrator
        .register(&accepted, 2, Interests::READABLE)
        .unwrap();
    accepted.write_all(b"a").unwrap();
    event_loop.expect(&[1]);
    stream.write_all(b"b").unwrap();
    event_loop.expect(&[2]);
    let (mut one, mut other) = ([0], [0]);
    stream.read_exact(&mut one).unwrap();
    accepted.read_exact(&mut other).unwrap();
    assert_eq!((one, other), (*b"a", *b"b"));
}

/// No more data can arrive after reading was shut down, so there is nothing to wait for. The shutdown may come from the
/// stream or from a duplicate.
#[test]
fn what_was_shut_down_has_ended() {
    for was_registered_before in [false, true] {
        for is_by_duplicate in [false, true] {
            let mut event_loop = Loop::new();
            let (mut stream, mut peer) = pair();
            if was_registered_before {
                event_loop.register(&stream, 1);
                peer.write_all(b"!").unwrap();
                event_loop.expect(&[1]);
                assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
            }
            match is_by_duplicate {
                false => stream.shutdown(Shutdown::Read).unwrap(),
                true => net::TcpStream::from(duplicate(&stream))
                    .shutdown(Shutdown::Read)
                    .unwrap(),
            }
            event_loop.register(&stream, 2);
            event_loop.expect(&[2]);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    }
}

/// Reading is shut down while a registration waits, and then while a read waits.
#[test]
fn shutting_down_reading_ends_what_waits() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop.register(&stream, 1);
    stream.shutdown(Shutdown::Read).unwrap();
    event_loop.expect(&[1]);
    assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 0);

    let (stream, _peer) = pair();
    event_loop.register(&stream, 2);
    let (sender, started) = std::sync::mpsc::channel();
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            sender.send(()).unwrap();
            (&stream).read(&mut [0; 8])
        });
        started.recv().unwrap();
        stream.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
    });
    event_loop.expect(&[2]);
}

/// One thread is in `read` or about to call it, and another one registers the stream and then shuts reading down. The
/// registration has its event at once, even if the read goes on waiting, as it does on Windows until the peer is gone.
#[test]
fn shutting_down_reading_ends_a_registration_beside_a_read() {
    let mut event_loop = Loop::new();
    let (stream, peer) = pair();
    let (sender, started) = std::sync::mpsc::channel();
    thread::scope(|threads| {
        threads.spawn(|| {
            sender.send(()).unwrap();
            let _ = (&stream).read(&mut [0; 8]);
        });
        started.recv().unwrap();
        event_loop.register(&stream, 1);
        stream.shutdown(Shutdown::Read).unwrap();
        event_loop.expect(&[1]);
        drop(peer);
    });
}

/// The bytes come from the buffer that a registered stream lends on Windows, or from the socket.
#[test]
fn several_buffers_are_filled_and_written_in_order() {
    for is_registered in [false, true] {
        let mut event_loop = Loop::new();
        let (mut stream, mut peer) = pair();
        if is_registered {
            event_loop.register(&stream, 1);
        }
        peer.write_all(b"abcdefg").unwrap();
        if is_registered {
            event_loop.expect(&[1]);
        } else {
            wait_for_data_unless_lent(&stream);
        }
        let (mut one, mut none, mut two, mut rest) = ([0; 1], [0; 0], [0; 2], [0; 9]);
        let mut bufs = [&mut one[..], &mut none, &mut two].map(IoSliceMut::new);
        assert_eq!(stream.read_vectored(&mut bufs).unwrap(), 3);
        assert_eq!(stream.read_vectored(&mut []).unwrap(), 0);
        let mut bufs = [&mut none[..], &mut rest].map(IoSliceMut::new);
        assert_eq!(stream.read_vectored(&mut bufs).unwrap(), 4);
        assert_eq!((one, two, &rest[..4]), (*b"a", *b"bc", &b"defg"[..]));

        let bufs = [&b"h"[..], b"", b"ijk"].map(IoSlice::new);
        assert_eq!(stream.write_vectored(&bufs).unwrap(), 4);
        let mut text = [0; 4];
        peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hijk");
    }
}
