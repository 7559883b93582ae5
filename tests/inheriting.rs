//! What a child program has of a loop: nothing, or the queue would be open as long as the child runs.
//!
//! One test, for it counts what the whole process has.

mod common;

use common::os::count_inheritable_handles;
use common::readable_pair;
use minimio::{Events, Interests, Poll};

#[test]
fn no_child_program_has_a_handle_of_the_loop() {
    // Of the stream it may have one: that is up to `std`.
    let (stream, _peer) = readable_pair();
    let before = count_inheritable_handles();
    let mut poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    let mut events = Events::with_capacity(1);
    assert_eq!(poll.poll(&mut events, Some(60_000)).unwrap(), 1);
    assert_eq!(count_inheritable_handles(), before);
}
