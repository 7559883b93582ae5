//! A child process made by `fork` may close its copy of a loop, and its parent notices nothing.
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

/// Where `fork` takes the queue along, the child closes its copy. Elsewhere it is told that there is no queue.
fn close_in_a_child(registrator: &Registrator) {
    let mut status = 0;
    // SAFETY: the child calls what a forked child of this process may call, and ends.
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
