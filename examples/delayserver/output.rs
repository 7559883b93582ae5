//! Output that does not panic.

use std::io::{self, ErrorKind, Write};

/// Unlike `print!`, does not panic when it cannot write. If the reader has closed its pipe (`| head`), that is no
/// error.
pub fn say(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let why = format!("cannot write the output: {error}");
            Err(io::Error::new(error.kind(), why))
        }
        _ => Ok(()),
    }
}

/// Unlike `eprint!`, does not panic when it cannot write, to a full disk for example.
pub fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
