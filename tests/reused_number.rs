//! The system soon reuses the number of a dropped stream. The new stream must not inherit any event.
//!
//! This file has only one test, because others in the same process could take the number.

mod common;

use common::os::number;
use common::{Loop, STATES, pair, stream_in};
use std::io::{Read, Write};

#[test]
fn a_reused_number_has_no_strangers_event() {
    for state in STATES {
        let mut event_loop = Loop::new();
        let (stream, _peer) = stream_in(state, &mut event_loop);
        let old = number(&stream);
        drop(stream);
        // The system reuses a number as soon as it is free, mostly for the next descriptor.
        let mut others = Vec::new();
        let (mut stranger, mut peer) = loop {
            let (stranger, peer) = pair();
            if number(&stranger) == old {
                break (stranger, peer);
            }
            others.push((stranger, peer));
            assert!(others.len() < 200, "the number {old} is not reused");
        };
        peer.write_all(b"!").unwrap();
        common::wait_for_data(&stranger);
        event_loop.expect_none();
        event_loop.register(&stranger, 4);
        event_loop.expect(&[4]);
        stranger.read_exact(&mut [0]).unwrap();
        event_loop.register(&stranger, 5);
        event_loop.expect_none();
    }
}
