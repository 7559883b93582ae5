//! The feature `trace`: a line on standard error for each call to the system, which says when it began, in which
//! thread, what was passed, and what came of it.
//!
//! Nothing in a backend mentions it. A backend's module `ffi` is its `traced.rs` then, whose functions have the names
//! of the system's, and call those. So a line shows what was passed, and not what somebody meant to pass. For what we
//! leave to `std`, a `recv` and a `write`, there is `traced!`.

#[cfg(windows)]
use super::iocp::ffi::{sockaddr_in, sockaddr_in6};
#[cfg(unix)]
use super::unix::ffi::{sockaddr_in, sockaddr_in6};
use std::ffi::c_void;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{net, thread};

/// Makes a call of `std`'s that moves bytes, and writes a line on it, with the words that follow.
macro_rules! traced {
    ($call:expr, $($words:tt)*) => {{
        let began = std::time::Instant::now();
        let result = $call;
        $crate::sys::trace::tell_bytes(began, &result, format_args!($($words)*));
        result
    }};
}

/// A call to the system that has returned.
pub struct Call<R> {
    began: Instant,
    took: Duration,
    pub result: R,
    fails_with: R,
    error: i32,
}

impl<R: Copy + PartialEq + Display> Call<R> {
    pub fn make(fails_with: R, call: impl FnOnce() -> R) -> Call<R> {
        let began = Instant::now();
        let result = call();
        // At once, because whatever else we call may set another.
        let error = os::last_error();
        Call {
            began,
            took: began.elapsed(),
            result,
            fails_with,
            error,
        }
    }

    pub fn has_failed(&self) -> bool {
        self.result == self.fails_with
    }

    /// Writes its line. If it did not fail, `brought` is what it brought.
    pub fn tell(self, words: fmt::Arguments<'_>, brought: impl Display) -> R {
        self.tell_all(words, &brought, None)
    }

    /// The same, and how long it took.
    pub fn tell_wait(self, words: fmt::Arguments<'_>, brought: impl Display) -> R {
        let took = self.took;
        self.tell_all(words, &brought, Some(took))
    }

    fn tell_all(
        self,
        words: fmt::Arguments<'_>,
        brought: &dyn Display,
        took: Option<Duration>,
    ) -> R {
        match self.has_failed() {
            true => {
                let (value, error) = (self.fails_with, Error(self.error));
                tell(self.began, words, format_args!("{value} {error}"), took);
            }
            false => tell(self.began, words, format_args!("{brought}"), took),
        }
        // The caller is about to ask for it.
        os::set_last_error(self.error);
        self.result
    }
}

/// See `traced!`. A call that moves bytes may have to wait for them.
pub fn tell_bytes(began: Instant, result: &io::Result<usize>, words: fmt::Arguments<'_>) {
    let took = Some(began.elapsed());
    match result {
        Ok(n) => tell(began, words, format_args!("{n}"), took),
        Err(error) => {
            let error = Error(error.raw_os_error().unwrap_or(0));
            tell(began, words, format_args!("-1 {error}"), took);
        }
    }
}

fn tell(
    began: Instant,
    words: fmt::Arguments<'_>,
    result: fmt::Arguments<'_>,
    took: Option<Duration>,
) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let at = began.saturating_duration_since(*FIRST.get_or_init(|| began));
    let mut line = Line::new();
    // It cannot fail: a line takes what it has room for.
    let _ = write!(line, "{:>10.3} ms  ", milliseconds(at));
    let _ = match thread::current() {
        thread if thread.name().is_none() => write!(line, "{:?}", thread.id()),
        thread => write!(line, "{}", thread.name().unwrap_or("").escape_debug()),
    };
    line.pad_to(26);
    let _ = write!(line, "  {words} = {result}");
    if let Some(took) = took {
        let _ = write!(line, "  ({:.3} ms)", milliseconds(took));
    }
    line.write();
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A line as it grows. It is on the stack: that our steady state allocates nothing shall be true of a traced one too.
struct Line {
    bytes: [u8; Line::ROOM],
    len: usize,
}

impl Line {
    /// A pipe takes that much at once, and nothing of others in between, on most systems.
    const ROOM: usize = 4096;

    fn new() -> Line {
        Line {
            bytes: [0; Line::ROOM],
            len: 0,
        }
    }

    fn pad_to(&mut self, column: usize) {
        self.bytes[self.len.min(column)..column].fill(b' ');
        self.len = self.len.max(column);
    }

    /// Once, and whole: so the lines of two threads do not mix.
    fn write(&mut self) {
        self.bytes[self.len] = b'\n';
        // If nobody reads it any more, nobody misses it.
        let _ = io::stderr().write_all(&self.bytes[..=self.len]);
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // A byte is left for the end of the line.
        let n = text.len().min(Line::ROOM - 1 - self.len);
        self.bytes[self.len..][..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// The bits of a number, by their names; those that have none, as a number.
pub struct Flags<'a>(pub u32, pub &'a [(u32, &'a str)]);

impl Display for Flags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut between) = (self.0, "");
        for &(_, name) in self.1.iter().filter(|(bit, _)| self.0 & bit != 0) {
            write!(f, "{between}{name}")?;
            between = "|";
        }
        self.1.iter().for_each(|(bit, _)| rest &= !bit);
        match (rest, self.0) {
            (0, 0) => f.write_str("0"),
            (0, _) => Ok(()),
            _ => write!(f, "{between}{rest:#x}"),
        }
    }
}

/// One of several values, by its name, or else as a number.
pub struct Name<'a>(pub i64, pub &'a [(i64, &'a str)]);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1.iter().find(|(value, _)| *value == self.0) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

pub struct Error(pub i32);

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match os::name_of_error(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// Milliseconds; a negative number is no end.
pub struct Timeout(pub i64);

impl Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0.. => write!(f, "timeout {} ms", self.0),
            _ => f.write_str("no timeout"),
        }
    }
}

/// What a wait brought: how many events, and the first of them.
pub struct Events<'a, E>(pub &'a [E]);

impl<E: Display> Display for Events<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        self.0.len().fmt(f)?;
        let mut between = ": [";
        for event in self.0.iter().take(SHOWN) {
            write!(f, "{between}{event}")?;
            between = ", ";
        }
        match self.0.len() {
            0 => Ok(()),
            n if n > SHOWN => write!(f, ", and {} more]", n - SHOWN),
            _ => f.write_str("]"),
        }
    }
}

/// The address that was passed to the system.
///
/// # Safety
///
/// `addr` points to a `sockaddr_in` or `sockaddr_in6`, and `len` is its size.
pub unsafe fn socket_addr(addr: *const c_void, len: usize) -> SocketAddr {
    if len == size_of::<sockaddr_in>() {
        // SAFETY: as the caller says, here and below.
        let addr = unsafe { &*addr.cast::<sockaddr_in>() };
        let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
        return (ip, u16::from_be(addr.sin_port)).into();
    }
    // SAFETY: see above.
    let addr = unsafe { &*addr.cast::<sockaddr_in6>() };
    (addr.sin6_addr.s6_addr, u16::from_be(addr.sin6_port)).into()
}

/// As the system calls it.
pub struct Stream<'a>(pub &'a net::TcpStream);

impl Display for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(unix)]
        return write!(f, "fd {}", std::os::fd::AsRawFd::as_raw_fd(self.0));
        #[cfg(windows)]
        return write!(
            f,
            "socket {:#x}",
            std::os::windows::io::AsRawSocket::as_raw_socket(self.0)
        );
    }
}

#[cfg(unix)]
pub struct Fd(pub std::ffi::c_int);

#[cfg(unix)]
impl Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd {}", self.0)
    }
}

#[cfg(unix)]
mod os {
    use crate::sys::unix::ffi::EINPROGRESS;
    use std::ffi::c_int;
    use std::io::{Error, ErrorKind};

    unsafe extern "C" {
        /// Where this thread's `errno` is. <https://man7.org/linux/man-pages/man3/errno.3.html>
        #[cfg_attr(
            any(target_os = "macos", target_os = "ios", target_os = "freebsd"),
            link_name = "__error"
        )]
        #[cfg_attr(
            any(target_os = "android", target_os = "netbsd", target_os = "openbsd"),
            link_name = "__errno"
        )]
        #[cfg_attr(
            any(target_os = "linux", target_os = "dragonfly"),
            link_name = "__errno_location"
        )]
        fn errno_location() -> *mut c_int;
    }

    pub fn last_error() -> i32 {
        // SAFETY: it points to a number that is this thread's as long as it runs.
        unsafe { *errno_location() }
    }

    pub fn set_last_error(error: i32) {
        // SAFETY: it points to a number that is this thread's as long as it runs.
        unsafe { *errno_location() = error }
    }

    /// Numbers below 35 are the same on all systems, except for that of `EAGAIN`. Of the others `std` knows the kind.
    pub fn name_of_error(error: i32) -> Option<&'static str> {
        Some(match (error, Error::from_raw_os_error(error).kind()) {
            (1, _) => "EPERM",
            (2, _) => "ENOENT",
            (4, _) => "EINTR",
            (5, _) => "EIO",
            (9, _) => "EBADF",
            (12, _) => "ENOMEM",
            (13, _) => "EACCES",
            (14, _) => "EFAULT",
            (17, _) => "EEXIST",
            (22, _) => "EINVAL",
            (23, _) => "ENFILE",
            (24, _) => "EMFILE",
            (28, _) => "ENOSPC",
            (32, _) => "EPIPE",
            (EINPROGRESS, _) => "EINPROGRESS",
            (_, ErrorKind::WouldBlock) => "EAGAIN",
            (_, ErrorKind::ConnectionRefused) => "ECONNREFUSED",
            (_, ErrorKind::ConnectionReset) => "ECONNRESET",
            (_, ErrorKind::ConnectionAborted) => "ECONNABORTED",
            (_, ErrorKind::NotConnected) => "ENOTCONN",
            (_, ErrorKind::TimedOut) => "ETIMEDOUT",
            (_, ErrorKind::HostUnreachable) => "EHOSTUNREACH",
            (_, ErrorKind::NetworkUnreachable) => "ENETUNREACH",
            (_, ErrorKind::NetworkDown) => "ENETDOWN",
            _ => return None,
        })
    }
}

#[cfg(windows)]
mod os {
    #[link(name = "kernel32")]
    unsafe extern "system" {
        /// <https://learn.microsoft.com/windows/win32/api/errhandlingapi/nf-errhandlingapi-setlasterror>
        fn SetLastError(dwErrCode: u32);
    }

    pub fn last_error() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    pub fn set_last_error(error: i32) {
        // SAFETY: a number is passed, and no pointer.
        unsafe { SetLastError(error as u32) }
    }

    pub fn name_of_error(error: i32) -> Option<&'static str> {
        Some(match error {
            6 => "ERROR_INVALID_HANDLE",
            8 => "ERROR_NOT_ENOUGH_MEMORY",
            64 => "ERROR_NETNAME_DELETED",
            87 => "ERROR_INVALID_PARAMETER",
            121 => "ERROR_SEM_TIMEOUT",
            258 => "WAIT_TIMEOUT",
            735 => "ERROR_ABANDONED_WAIT_0",
            995 => "ERROR_OPERATION_ABORTED",
            996 => "WSA_IO_INCOMPLETE",
            997 => "WSA_IO_PENDING",
            1168 => "ERROR_NOT_FOUND",
            1236 => "ERROR_CONNECTION_ABORTED",
            1450 => "ERROR_NO_SYSTEM_RESOURCES",
            1816 => "ERROR_NOT_ENOUGH_QUOTA",
            10004 => "WSAEINTR",
            10022 => "WSAEINVAL",
            10024 => "WSAEMFILE",
            10035 => "WSAEWOULDBLOCK",
            10038 => "WSAENOTSOCK",
            10050 => "WSAENETDOWN",
            10052 => "WSAENETRESET",
            10053 => "WSAECONNABORTED",
            10054 => "WSAECONNRESET",
            10055 => "WSAENOBUFS",
            10057 => "WSAENOTCONN",
            10058 => "WSAESHUTDOWN",
            10060 => "WSAETIMEDOUT",
            10061 => "WSAECONNREFUSED",
            _ => return None,
        })
    }
}
