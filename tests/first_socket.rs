//! Of the first socket that a program makes: on Windows, `std` has not started Winsock before it.
//!
//! One test, because nothing else may have used a socket.

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
