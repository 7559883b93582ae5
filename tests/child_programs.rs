//! A child program inherits neither the loop nor a connection that is being made: it would keep a queue or a socket
//! open.
//!
//! One test, because it looks at what the whole process has open.

mod common;

use common::os::count_inheritable_handles;
use common::readable_pair;
use minimio::{Events, Interests, Poll, TcpListener, TcpStream};

#[test]
fn a_child_program_inherits_nothing() {
    // Before we count: not every system's `accept` keeps a stream to ourselves.
    let (stream, _peer) = readable_pair();
    let before = count_inheritable_handles();
    let mut poll = Poll::new().unwrap();
    let registrator = poll.registrator();
    registrator
        .register(&stream, 1, Interests::READABLE)
        .unwrap();
    assert_eq!(poll.poll(&mut Events::with_capacity(1), None).unwrap(), 1);
    assert_eq!(count_inheritable_handles(), before);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _connecting = TcpStream::start_connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(count_inheritable_handles(), before);
}
