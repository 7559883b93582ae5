//! The number of a dropped stream is soon given to another one, which must not inherit anything.
//!
//! One test, for others beside it would take the number.

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
        // The system gives a number again as soon as it is free, mostly to the next who asks.
        let mut others = Vec::new();
        let (mut stranger, mut peer) = loop {
            let (stranger, peer) = pair();
            if number(&stranger) == old {
                break (stranger, peer);
            }
            others.push((stranger, peer));
            assert!(others.len() < 200, "{old} is not given again");
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
