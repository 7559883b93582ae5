//! The feature `trace`: a line on standard error for each call to the system. It says when the call returned, in which
//! thread, its arguments, its result, and how long it took.
//!
//! The backends do not mention the trace. With the feature, a backend's module `ffi` is its `traced.rs`, whose functions
//! have the names of the system's and call them. So a line shows the arguments that were really passed. The macro
//! `traced!` does this for calls that `std` makes (reading, writing, accepting), and `traced_close!` for closing.
//!
//! The times are in the order of the lines. While a call that cannot sleep is being made, no other thread can write a line.
//! So its line comes before the lines of everything that the call has caused. A call that may sleep does not lock out
//! other threads; its line only says within which span of time the call happened.

#[cfg(windows)]
use super::iocp::ffi::{sockaddr_in, sockaddr_in6};
#[cfg(unix)]
use super::unix::ffi::{sockaddr_in, sockaddr_in6};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fmt::{self, Display, Write as _};
use std::io::{self, StderrLock, Write as _};
use std::net::{self, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Makes a call of `std`'s that may sleep, and writes a line on it, with the words that follow. With `now:`, one that cannot.
macro_rules! traced {
    (now: $($call:tt)*) => {{
        let _order = std::io::stderr().lock();
        traced!($($call)*)
    }};
    ($call:expr, $($words:tt)*) => {{
        let began = std::time::Instant::now();
        let result = $call;
        $crate::sys::trace::tell_result(began, &result, format_args!($($words)*));
        result
    }};
}

/// Writes a line on what `std` is about to close. Afterwards the number may be another thread's already.
macro_rules! traced_close {
    ($($what:expr),*) => {
        $($crate::sys::trace::tell_close(&$what);)*
    };
}

/// A call to the system that has returned.
pub struct Call<R> {
    began: Instant,
    pub result: R,
    fails_with: R,
    error: i32,
    /// No other thread writes its line before this one is written.
    _order: Option<StderrLock<'static>>,
}

impl<R: Copy + PartialEq + Display> Call<R> {
    /// A call that cannot sleep.
    pub fn make(fails_with: R, call: impl FnOnce() -> R) -> Call<R> {
        Call::make_in(Some(io::stderr().lock()), fails_with, call)
    }

    /// A call that may sleep.
    pub fn wait(fails_with: R, call: impl FnOnce() -> R) -> Call<R> {
        Call::make_in(None, fails_with, call)
    }

    fn make_in(
        _order: Option<StderrLock<'static>>,
        fails_with: R,
        call: impl FnOnce() -> R,
    ) -> Call<R> {
        let began = Instant::now();
        let result = call();
        // At once, because whatever else we call may set another.
        let error = os::last_error();
        Call {
            began,
            result,
            fails_with,
            error,
            _order,
        }
    }

    pub fn has_failed(&self) -> bool {
        self.result == self.fails_with
    }

    /// Writes its line. If it did not fail, `brought` is what it brought.
    pub fn tell(self, words: fmt::Arguments<'_>, brought: impl Display) -> R {
        match self.has_failed() {
            true => {
                let (value, error) = (self.fails_with, Error(self.error));
                tell_call(self.began, words, format_args!("{value} {error}"));
            }
            false => tell_call(self.began, words, format_args!("{brought}")),
        }
        // The caller is about to ask for it.
        os::set_last_error(self.error);
        self.result
    }
}

/// What a call of `std`'s brings.
pub trait Brought {
    fn brought(&self) -> impl Display;
}

impl Brought for usize {
    fn brought(&self) -> impl Display {
        self
    }
}

impl Brought for (net::TcpStream, SocketAddr) {
    fn brought(&self) -> impl Display {
        self.0.name()
    }
}

/// See `traced!`.
pub fn tell_result(began: Instant, result: &io::Result<impl Brought>, words: fmt::Arguments<'_>) {
    match result {
        Ok(ok) => tell_call(began, words, format_args!("{}", ok.brought())),
        Err(error) => {
            let error = Error(error.raw_os_error().unwrap_or(0));
            tell_call(began, words, format_args!("-1 {error}"));
        }
    }
}

/// See `traced_close!`. What comes of it `std` does not say.
pub fn tell_close(what: &impl Named) {
    tell(format_args!("{}({})", what.closed_by(), what.name()), None);
}

fn tell_call(began: Instant, words: fmt::Arguments<'_>, result: fmt::Arguments<'_>) {
    tell(format_args!("{words} = {result}"), Some(began));
}

fn tell(words: fmt::Arguments<'_>, began: Option<Instant>) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let mut stderr = io::stderr().lock();
    // Only now, because another thread may have been about to write its line.
    let now = Instant::now();
    let first = *FIRST.get_or_init(|| began.unwrap_or(now));
    let mut line = Line::new();
    // It cannot fail: a line takes what it has room for.
    let _ = write!(line, "{:>10.3} ms  ", milliseconds(now - first));
    write_thread(&mut line);
    line.pad_to(26);
    let _ = write!(line, "  {words}");
    if let Some(began) = began {
        let _ = write!(line, "  ({:.3} ms)", milliseconds(now - began));
    }
    line.write(&mut stderr);
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A name that no other thread has: the second `worker` is `worker#2`.
fn write_thread(line: &mut Line) {
    static THREADS: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);
    thread_local! {
        static NAME: String = {
            let thread = thread::current();
            let name = match thread.name() {
                Some(name) => name.escape_debug().to_string(),
                None => format!("{:?}", thread.id()),
            };
            let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
            let count = threads.get_or_insert_default().entry(name.clone()).or_default();
            *count += 1;
            match *count {
                1 => name,
                n => format!("{name}#{n}"),
            }
        };
    }
    // A thread that is about to end may have lost its name already.
    let _ = NAME
        .try_with(|name| line.write_str(name))
        .unwrap_or_else(|_| write!(line, "{:?}", thread::current().id()));
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

    /// Writes the line in one call, so that it does not mix with the output of other programs.
    fn write(&mut self, stderr: &mut StderrLock<'_>) {
        self.bytes[self.len] = b'\n';
        // An error means that the line is lost, which must not change what the program does.
        let _ = stderr.write_all(&self.bytes[..=self.len]);
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
pub trait Named {
    fn name(&self) -> impl Display;
    fn closed_by(&self) -> &'static str;
}

pub fn name_of(what: &impl Named) -> impl Display {
    what.name()
}

#[cfg(windows)]
impl<T: std::os::windows::io::AsRawSocket> Named for T {
    fn name(&self) -> impl Display {
        Socket(self.as_raw_socket())
    }

    fn closed_by(&self) -> &'static str {
        "closesocket"
    }
}

#[cfg(windows)]
struct Socket(std::os::windows::io::RawSocket);

#[cfg(windows)]
impl Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "socket {:#x}", self.0)
    }
}

#[cfg(unix)]
impl<T: std::os::fd::AsRawFd> Named for T {
    fn name(&self) -> impl Display {
        Fd(self.as_raw_fd())
    }

    fn closed_by(&self) -> &'static str {
        "close"
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
