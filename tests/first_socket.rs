//! The first socket of a program may be ours. On Windows, `std` has not started Winsock then.
//!
//! This file has only one test, because no other code may use a socket before it.

use minimio::TcpStream;
use std::io::ErrorKind;

#[test]
fn a_connection_needs_no_other_socket_before_it() {
    // Whether there is a server at that address does not matter.
    match TcpStream::start_connect("127.0.0.1:9".parse().unwrap()) {
        Ok(connecting) => drop(connecting),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
    }
}
