//! In the steady state, neither an event nor a registration allocates.

mod common;

use common::{Loop, pair};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};

thread_local! {
    /// This thread's, for the test harness has others, which are none of our business.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as this function's own contract says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as this function's own contract says.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn a_round_of_waiting_reading_and_registering_allocates_nothing() {
    let mut event_loop = Loop::new();
    let mut pairs: Vec<_> = (0..10).map(|_| pair()).collect();
    let mut round = |event_loop: &mut Loop| {
        for (_, peer) in &mut pairs {
            peer.write_all(b"!").unwrap();
        }
        for (token, (stream, _)) in pairs.iter().enumerate() {
            event_loop.register(stream, token);
        }
        let mut left = pairs.len();
        while left > 0 {
            left -= event_loop
                .poll
                .poll(&mut event_loop.events, Some(60_000))
                .unwrap();
            for event in &event_loop.events {
                pairs[event.id()].0.read_exact(&mut [0]).unwrap();
            }
        }
    };
    // The first time may make room for what is needed ever after.
    round(&mut event_loop);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "this counts nothing");
    (0..100).for_each(|_| round(&mut event_loop));
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
