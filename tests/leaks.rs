//! After two thousand lives, no descriptor more is open than before. (Memory is valgrind's business.)
//!
//! One test, for it counts what the whole process has open.

mod common;

use common::{Loop, pair};
use minimio::{Interests, Poll};
use std::io::{Read, Write};

/// One life of a loop and a stream, ended at the stage, and in the order, that the number says.
fn live(number: usize) {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    let clone = event_loop.registrator.clone();
    let stage = number % 6;
    if stage >= 1 {
        event_loop.register(&stream, 1);
    }
    if stage >= 2 {
        peer.write_all(b"!").unwrap();
    }
    if stage >= 3 {
        event_loop.expect(&[1]);
    }
    if stage >= 4 {
        stream.read_exact(&mut [0]).unwrap();
        event_loop.register(&stream, 2);
    }
    if stage >= 5 {
        clone.close_loop().unwrap();
        clone.register(&stream, 3, Interests::READABLE).unwrap_err();
    }
    match number / 6 % 4 {
        0 => drop((event_loop, stream, clone, peer)),
        1 => drop((stream, clone, event_loop, peer)),
        2 => drop((clone, peer, event_loop, stream)),
        _ => drop((peer, stream, event_loop, clone)),
    }
}

#[test]
fn nothing_is_open_after_two_thousand_lives() {
    // Whatever the system opens once, for itself, is open after these.
    (0..24).for_each(live);
    let before = common::os::count_open_handles();
    (0..2000).for_each(live);
    assert_eq!(common::os::count_open_handles(), before);

    // What lives on does not keep the rest open: not a stream its loop, ...
    let (stream, _peer) = pair();
    let before = common::os::count_open_handles();
    for _ in 0..20 {
        let _ = Poll::new()
            .unwrap()
            .registrator()
            .register(&stream, 1, Interests::READABLE);
    }
    let poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let _ = registrator.register(&stream, 1, Interests::READABLE);
    drop((poll, registrator));
    assert_eq!(common::os::count_open_handles(), before);
}
