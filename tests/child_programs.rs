//! A program that is started meanwhile inherits nothing of the loop: a queue that it keeps open would not be given back.
//!
//! One test, for it looks at what the whole process has open.

mod common;

use common::{Loop, State, stream_in};

#[test]
fn a_child_program_inherits_nothing() {
    let before = common::os::count_inheritable_handles();
    let mut event_loop = Loop::new();
    let _connection = stream_in(State::EventTaken, &mut event_loop);
    assert_eq!(common::os::count_inheritable_handles(), before);
}
