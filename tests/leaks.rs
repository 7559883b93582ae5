//! After thousands of lives, no descriptor more is open than before, and no byte more is allocated.
//!
//! One test, for it counts what the whole process has open.

mod common;

use common::counting::{Counting, allocations, live_bytes};
use common::os::{count_open_handles, reset_when_closed};
use common::{DIRECTIONS, Loop, STAGES_OF_ONE, STATES, Stage};
use common::{connecting_in, listener_in, make_room, nobody, pair, stream_in};
use minimio::{Poll, TcpStream};
use std::io::{Read, Write};

/// One life of a loop and a stream, ended at the stage, and in the order, that the number says.
fn live(number: usize) {
    let mut event_loop = Loop::new();
    let (mut stream, mut peer) = pair();
    let clone = event_loop.registrator.clone();
    let (stage, writes) = (number % 6, number / 24 % 2 == 1);
    let register = |event_loop: &Loop, stream: &TcpStream, token| {
        event_loop.register(stream, token);
        if writes {
            event_loop.register_to_write(stream, token);
        }
    };
    if stage >= 1 {
        register(&event_loop, &stream, 1);
    }
    if stage >= 2 {
        peer.write_all(b"!").unwrap();
    }
    if stage >= 3 {
        event_loop.expect(if writes { &[1, 1] } else { &[1] });
    }
    if stage >= 4 {
        stream.read_exact(&mut [0]).unwrap();
        register(&event_loop, &stream, 2);
    }
    if stage >= 5 {
        clone.close_loop().unwrap();
        for direction in DIRECTIONS {
            clone.register(&stream, 3, direction).unwrap_err();
        }
    }
    match number / 6 % 4 {
        0 => drop((event_loop, stream, clone, peer)),
        1 => drop((stream, clone, event_loop, peer)),
        2 => drop((clone, peer, event_loop, stream)),
        _ => drop((peer, stream, event_loop, clone)),
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

/// Drops a listener and a connection at this stage; or accepts the client and finishes the connection before.
fn meet(stage: Stage, event_loop: &mut Loop, ends_well: bool) {
    let (listener, client) = listener_in(stage, event_loop);
    let (peer, connecting, others) = connecting_in(stage, event_loop);
    client.iter().for_each(reset_when_closed);
    reset_when_closed(&connecting);
    if ends_well && stage == Stage::Waiting {
        connecting.finish().unwrap_err(); // abandons the attempt
    } else if ends_well {
        // After this the connection is established.
        drop((listener.accept().unwrap(), peer.accept().unwrap()));
        connecting.finish().unwrap();
    }
    drop((listener, peer, others));
}

/// Starts a connection that is refused.
fn be_refused(event_loop: &mut Loop) {
    let (_taken, addr) = nobody();
    // A BSD may refuse it at once.
    if let Ok(connecting) = TcpStream::start_connect(addr) {
        event_loop.register_connecting(&connecting, 1);
        event_loop.expect(&[1]);
        connecting.finish().unwrap_err();
    }
}

/// Lives so often, and no more is in use then than before.
#[track_caller]
fn leaves_nothing(times: usize, mut live: impl FnMut(usize)) {
    let in_use = || (live_bytes(), count_open_handles());
    live(60); // whatever is made once, for all, is there after these
    let before = in_use();
    assert!(allocations() > 0 && before.1 > 0, "this counts nothing");
    live(times);
    assert_eq!(in_use(), before, "bytes and handles");
}

#[test]
fn nothing_is_left_of_thousands_of_lives() {
    leaves_nothing(2000, |times| (0..times).for_each(live));

    // A stream that is gone leaves nothing in a loop that goes on.
    for state in STATES {
        let mut event_loop = Loop::new();
        make_room(&mut event_loop);
        leaves_nothing(500, |times| {
            for at in 1..=times {
                let (stream, _peer) = stream_in(state, &mut event_loop);
                reset_when_closed(&stream);
                drop(stream);
                if at % 20 == 0 {
                    // What the system still has to say about them, it says now.
                    event_loop.expect_none();
                }
            }
        });
    }

    // A loop that is gone leaves nothing in streams that go on, and they go on well.
    for state in STATES {
        leaves_nothing(50, |times| {
            for _ in 0..times {
                let mut event_loop = Loop::new();
                drop(stream_in(state, &mut event_loop));
                let (mut stream, mut peer) = stream_in(state, &mut event_loop);
                drop(event_loop);
                peer.write_all(b"?").unwrap();
                stream.read_exact(&mut [0]).unwrap();
            }
        });
    }

    // The same holds for listeners and connections.
    for stage in STAGES_OF_ONE {
        let mut event_loop = Loop::new();
        make_room(&mut event_loop);
        leaves_nothing(100, |times| {
            for at in 1..=times {
                meet(stage, &mut event_loop, at % 2 == 0);
                be_refused(&mut event_loop);
                if at % 20 == 0 {
                    event_loop.expect_none();
                }
            }
        });
        leaves_nothing(50, |times| {
            for _ in 0..times {
                let mut event_loop = Loop::new();
                let (listener, _client) = listener_in(stage, &mut event_loop);
                let (_peer, connecting, _others) = connecting_in(stage, &mut event_loop);
                drop(event_loop);
                drop((connecting, listener));
            }
        });
    }

    // It is not kept open by a stream.
    let (stream, _peer) = pair();
    let before = count_open_handles();
    for direction in DIRECTIONS.repeat(10) {
        let _ = Poll::new()
            .unwrap()
            .registrator()
            .register(&stream, 1, direction);
    }
    let poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    let _ = registrator.register(&stream, 1, DIRECTIONS[0]);
    drop((poll, registrator));
    assert_eq!(count_open_handles(), before);
}
