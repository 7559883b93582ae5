//! A child process made by `fork` may close its copy of a loop. That does not affect the parent's loop.
#![cfg(unix)]

mod common;

use common::{Loop, readable_pair};
use minimio::Registrator;
use std::ffi::c_int;

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
}

/// If the child has inherited the queue, it closes its copy. On other systems `close_loop` returns an error in the
/// child.
fn close_in_a_child(registrator: &Registrator) {
    let mut status = 0;
    // SAFETY: the child only makes calls that are allowed after `fork`, and exits.
    unsafe {
        let child = fork();
        assert_ne!(child, -1, "fork");
        if child == 0 {
            let _ = registrator.close_loop();
            _exit(0);
        }
        assert_eq!(waitpid(child, &mut status, 0), child);
    }
    assert_eq!(status, 0, "the child's status");
}

#[test]
fn a_loop_that_a_child_closes_stays_open() {
    let mut event_loop = Loop::new();
    let (stream, _peer) = readable_pair();
    event_loop.register(&stream, 1);
    close_in_a_child(&event_loop.registrator);
    event_loop.expect(&[1]);
    event_loop.expect_none();
    event_loop.register(&stream, 2);
    event_loop.expect(&[2]);
}
