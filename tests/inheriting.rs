//! What a child program has of a loop: nothing, or the queue would be open as long as the child runs.
//!
//! One test, for it counts what the whole process has.

mod common;

use common::os::count_inheritable_handles;
use common::{Loop, pair};

#[test]
fn no_child_program_has_a_handle_of_the_loop() {
    let before = count_inheritable_handles();
    let mut event_loop = Loop::new();
    let (stream, _peer) = pair();
    event_loop.register(&stream, 1);
    event_loop.expect_none();
    assert_eq!(count_inheritable_handles(), before);
}
