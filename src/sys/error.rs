//! Errors that all backends share.

use std::{error, fmt, io};

/// The error that the OS has just reported, preceded by the name of the call that failed.
#[cold]
pub fn failed(call: &'static str) -> io::Error {
    failed_with(call, io::Error::last_os_error())
}

/// The same, for an error that the caller has already.
#[cold]
pub fn failed_with(call: &'static str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), FailedCall { call, error })
}

/// The same, for an error number that the caller has already.
#[cold]
#[allow(dead_code)] // epoll leaves every number in `errno`
pub fn failed_with_code(call: &'static str, code: i32) -> io::Error {
    failed_with(call, io::Error::from_raw_os_error(code))
}

#[derive(Debug)]
struct FailedCall {
    call: &'static str,
    error: io::Error,
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.error)
    }
}

impl error::Error for FailedCall {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

pub fn belongs_to_another() -> io::Error {
    let message = "already registered with another Poll";
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
