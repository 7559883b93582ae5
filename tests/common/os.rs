//! What the tests need from the operating system and `std` does not offer.

use minimio::TcpStream;

/// The size of a limited send buffer, in bytes.
const SEND_BUFFER: usize = 16 << 10;

#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

#[cfg(unix)]
mod unix {
    use super::{SEND_BUFFER, TcpStream};
    use std::ffi::{OsString, c_int, c_uint, c_void};
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::process::CommandExt;
    use std::os::unix::thread::JoinHandleExt;
    use std::process::Command;
    use std::ptr;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread::JoinHandle;

    #[cfg(any(target_env = "gnu", target_os = "android"))]
    type RlimT = std::ffi::c_ulong;
    #[cfg(not(any(target_env = "gnu", target_os = "android")))]
    type RlimT = u64;

    #[repr(C)]
    #[derive(Debug)]
    struct Rlimit {
        cur: RlimT,
        max: RlimT,
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    type NfdsT = std::ffi::c_ulong;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    type NfdsT = c_uint;

    #[repr(C)]
    struct PollFd {
        fd: c_int,
        events: i16,
        revents: i16,
    }

    const POLLIN: i16 = 1;

    #[repr(C)]
    struct Linger {
        onoff: c_int,
        linger: c_int,
    }

    const IS_LINUX: bool = cfg!(any(target_os = "linux", target_os = "android"));
    const SOL_SOCKET: c_int = if IS_LINUX { 1 } else { 0xffff };
    const SO_LINGER: c_int = if IS_LINUX { 13 } else { 0x80 };
    const SO_SNDBUF: c_int = if IS_LINUX { 7 } else { 0x1001 };
    const RLIMIT_NOFILE: c_int = if IS_LINUX { 7 } else { 8 };
    const F_GETFD: c_int = 1;
    const FD_CLOEXEC: c_int = 1;
    pub const SIGINT: c_int = 2;
    const SIGALRM: c_int = 14;
    const SIG_DFL: usize = 0;
    const ESRCH: c_int = 3;

    unsafe extern "C" {
        fn fcntl(fd: c_int, cmd: c_int, ...) -> c_int;
        fn setsockopt(
            fd: c_int,
            level: c_int,
            name: c_int,
            value: *const c_void,
            len: c_uint,
        ) -> c_int;
        fn listen(fd: c_int, backlog: c_int) -> c_int;
        fn poll(fds: *mut PollFd, nfds: NfdsT, timeout: c_int) -> c_int;
        fn getrlimit(resource: c_int, limit: *mut Rlimit) -> c_int;
        fn setrlimit(resource: c_int, limit: *const Rlimit) -> c_int;
        fn signal(signum: c_int, handler: usize) -> usize;
        fn clock() -> c_uint; // the lower half on systems where the result has 64 bits
        fn pthread_kill(thread: std::os::unix::thread::RawPthread, signum: c_int) -> c_int;
    }

    pub fn duplicate(source: &impl AsFd) -> OwnedFd {
        source.as_fd().try_clone_to_owned().expect("dup")
    }

    /// The system's number for the stream. When this stream is closed, another one gets the number.
    pub fn number(stream: &TcpStream) -> usize {
        stream.as_raw_fd() as usize
    }

    /// Waits until the socket, blocking or not, has data to read, or until the timeout expires. Returns whether it has
    /// data.
    pub fn wait_for_data(stream: &impl AsFd, timeout_ms: c_int) -> bool {
        let (fd, events, revents) = (stream.as_fd().as_raw_fd(), POLLIN, 0);
        let mut socket = PollFd {
            fd,
            events,
            revents,
        };
        // SAFETY: the list has one entry, which is used only until the call returns.
        unsafe { poll(&mut socket, 1, timeout_ms) == 1 }
    }

    /// Sets how many clients may wait to be accepted, approximately.
    pub fn set_backlog(listener: &impl AsFd, backlog: c_int) {
        // SAFETY: only numbers are passed, and the descriptor is open.
        let result = unsafe { listen(listener.as_fd().as_raw_fd(), backlog) };
        assert_eq!(result, 0, "listen");
    }

    /// Closing the stream now resets the connection, and neither side keeps it in `TIME_WAIT`.
    pub fn reset_when_closed(stream: &impl AsFd) {
        let (onoff, linger) = (1, 0);
        set_option(stream, SO_LINGER, &Linger { onoff, linger });
    }

    /// Limits the send buffer, so that fewer bytes fill it. (The system may choose another size.)
    pub fn limit_send_buffer(stream: &impl AsFd) {
        set_option(stream, SO_SNDBUF, &(SEND_BUFFER as c_int));
    }

    /// Makes each later write leave an entry in the socket's error queue, which `poll` reports as an error. Returns whether
    /// the system has this option: Linux has, and an emulator of the processor may not.
    /// <https://docs.kernel.org/networking/timestamping.html>
    #[cfg(target_os = "linux")]
    pub fn ask_when_sent(stream: &impl AsFd) -> bool {
        const SO_TIMESTAMPING: c_int = 37;
        const TX_SOFTWARE: c_int = 1 << 1;
        const SOFTWARE: c_int = 1 << 4;
        has_set_option(stream, SO_TIMESTAMPING, &(TX_SOFTWARE | SOFTWARE))
    }

    fn set_option<T>(stream: &impl AsFd, name: c_int, value: &T) {
        assert!(has_set_option(stream, name, value), "setsockopt");
    }

    fn has_set_option<T>(stream: &impl AsFd, name: c_int, value: &T) -> bool {
        let (fd, len) = (stream.as_fd().as_raw_fd(), size_of::<T>() as c_uint);
        let place = ptr::from_ref(value).cast();
        // SAFETY: the descriptor is open, and `value` is used until the call returns.
        let result = unsafe { setsockopt(fd, SOL_SOCKET, name, place, len) };
        result == 0
    }

    pub fn count_open_handles() -> usize {
        flags_of_descriptors().count()
    }

    pub fn count_inheritable_handles() -> usize {
        flags_of_descriptors()
            .filter(|flags| flags & FD_CLOEXEC == 0)
            .count()
    }

    fn flags_of_descriptors() -> impl Iterator<Item = c_int> {
        (0..8192)
            // SAFETY: takes no pointer, and only reads a flag of a descriptor that need not exist.
            .map(|fd| unsafe { fcntl(fd, F_GETFD) })
            .filter(|&flags| flags != -1)
    }

    pub fn not_unicode() -> OsString {
        OsString::from_vec(vec![b'x', 0xFF])
    }

    /// Raises the limit on descriptors. It is about a thousand on many systems, and a quarter of that on some.
    pub fn allow_open_handles(count: usize) {
        let mut limit = Rlimit { cur: 0, max: 0 };
        // SAFETY: both calls use `limit` only until they return.
        unsafe {
            assert_eq!(getrlimit(RLIMIT_NOFILE, &mut limit), 0, "getrlimit");
            if limit.cur < count as RlimT {
                limit.cur = count as RlimT;
                let asked = setrlimit(RLIMIT_NOFILE, &limit);
                assert_eq!(
                    asked, 0,
                    "this test needs {count} descriptors; the limits are {limit:?}"
                );
            }
        }
    }

    /// The processor time that the process has used so far, in a unit of the system.
    pub fn processor_time() -> u64 {
        // SAFETY: takes no arguments.
        unsafe { clock() }.into()
    }

    /// Gives `SIGINT` its default action, which a program that is started from a terminal has. A program that a shell
    /// starts in the background ignores the signal, and so do its children. The tests may be among them.
    pub fn heed_interrupt(program: &mut Command) {
        // SAFETY: `signal` is among the functions that may be called between `fork` and `exec`.
        unsafe {
            program.pre_exec(|| {
                signal(SIGINT, SIG_DFL);
                Ok(())
            });
        }
    }

    static INTERRUPTIONS: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count_interruption(_: c_int) {
        INTERRUPTIONS.fetch_add(1, SeqCst);
    }

    /// Sends a signal to the thread, unless the thread has ended. The signal interrupts the thread's system call.
    /// Returns how many signals have arrived so far.
    pub fn interrupt<T>(thread: &JoinHandle<T>) -> usize {
        // SAFETY: the handler only does what is allowed in a handler, and the thread's handle keeps its id valid.
        unsafe {
            signal(SIGALRM, count_interruption as *const () as usize);
            let error = pthread_kill(thread.as_pthread_t(), SIGALRM);
            assert!([0, ESRCH].contains(&error), "pthread_kill: {error}");
        }
        INTERRUPTIONS.load(SeqCst)
    }
}

#[cfg(windows)]
mod windows {
    use super::{SEND_BUFFER, TcpStream};
    use std::ffi::{OsString, c_void};
    use std::os::windows::ffi::OsStringExt;
    use std::os::windows::io::{AsRawSocket, AsSocket, OwnedSocket};
    use std::ptr;
    use std::thread::JoinHandle;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetHandleInformation(handle: usize, flags: *mut u32) -> i32;
        fn GetCurrentProcess() -> usize;
        fn GetProcessTimes(
            process: usize,
            creation: *mut u64,
            exit: *mut u64,
            kernel: *mut u64,
            user: *mut u64,
        ) -> i32;
    }

    /// `struct linger`: whether to linger, and for how long.
    type Linger = [u16; 2];
    const SOL_SOCKET: i32 = 0xffff;
    const SO_LINGER: i32 = 0x80;
    const SO_SNDBUF: i32 = 0x1001;

    #[repr(C)]
    struct PollFd {
        fd: usize,
        events: i16,
        revents: i16,
    }

    const POLLRDNORM: i16 = 0x100;

    #[link(name = "ws2_32")]
    unsafe extern "system" {
        fn setsockopt(s: usize, level: i32, name: i32, value: *const c_void, len: i32) -> i32;
        fn listen(s: usize, backlog: i32) -> i32;
        fn WSAPoll(fds: *mut PollFd, nfds: u32, timeout: i32) -> i32;
    }

    /// Waits until the socket, blocking or not, has data to read, or until the timeout expires. Returns whether it has
    /// data.
    pub fn wait_for_data(stream: &impl AsSocket, timeout_ms: i32) -> bool {
        let (fd, events, revents) = (stream.as_socket().as_raw_socket() as usize, POLLRDNORM, 0);
        let mut socket = PollFd {
            fd,
            events,
            revents,
        };
        // SAFETY: the list has one entry, which is used only until the call returns.
        unsafe { WSAPoll(&mut socket, 1, timeout_ms) == 1 }
    }

    /// Sets how many clients may wait to be accepted, approximately.
    pub fn set_backlog(listener: &impl AsSocket, backlog: i32) {
        let socket = listener.as_socket().as_raw_socket() as usize;
        // SAFETY: only numbers are passed, and the socket is open.
        assert_eq!(unsafe { listen(socket, backlog) }, 0, "listen");
    }

    /// Closing the stream now resets the connection, and neither side keeps it in `TIME_WAIT`.
    pub fn reset_when_closed(stream: &impl AsSocket) {
        let linger: Linger = [1, 0];
        set_option(stream, SO_LINGER, &linger);
    }

    /// Limits the send buffer, so that fewer bytes fill it. (The system may choose another size.)
    pub fn limit_send_buffer(stream: &impl AsSocket) {
        set_option(stream, SO_SNDBUF, &(SEND_BUFFER as i32));
    }

    fn set_option<T>(stream: &impl AsSocket, name: i32, value: &T) {
        let socket = stream.as_socket().as_raw_socket() as usize;
        let (place, len) = (ptr::from_ref(value).cast(), size_of::<T>() as i32);
        // SAFETY: the socket is open, and `value` is used until the call returns.
        let result = unsafe { setsockopt(socket, SOL_SOCKET, name, place, len) };
        assert_eq!(result, 0, "setsockopt");
    }

    pub fn duplicate(source: &impl AsSocket) -> OwnedSocket {
        source
            .as_socket()
            .try_clone_to_owned()
            .expect("WSADuplicateSocket")
    }

    /// The system's number for the stream. When this stream is closed, another one gets the number.
    pub fn number(stream: &TcpStream) -> usize {
        stream.as_raw_socket() as usize
    }

    const HANDLE_FLAG_INHERIT: u32 = 1;

    pub fn count_open_handles() -> usize {
        flags_of_handles().count()
    }

    pub fn count_inheritable_handles() -> usize {
        flags_of_handles()
            .filter(|flags| flags & HANDLE_FLAG_INHERIT != 0)
            .count()
    }

    /// Handles are multiples of four. (Windows would count them for us, but Wine does not.)
    fn flags_of_handles() -> impl Iterator<Item = u32> {
        (4..0x8000).step_by(4).filter_map(|handle| {
            let mut flags = 0;
            // SAFETY: the handle need not exist, and `flags` is used until the call returns.
            let exists = unsafe { GetHandleInformation(handle, &mut flags) } != 0;
            exists.then_some(flags)
        })
    }

    pub fn not_unicode() -> OsString {
        OsString::from_wide(&[0xD800])
    }

    /// Windows has no limit that a test would reach.
    pub fn allow_open_handles(_: usize) {}

    /// The processor time that the process has used so far, in a unit of the system.
    pub fn processor_time() -> u64 {
        let [mut started, mut ended, mut kernel, mut user] = [0; 4];
        // SAFETY: all four are used until the call returns.
        let done = unsafe {
            GetProcessTimes(
                GetCurrentProcess(),
                &mut started,
                &mut ended,
                &mut kernel,
                &mut user,
            )
        };
        assert_ne!(done, 0, "GetProcessTimes");
        kernel + user
    }

    /// Windows has no signals, and nothing else interrupts a wait from outside.
    pub fn interrupt<T>(_: &JoinHandle<T>) -> usize {
        usize::MAX
    }
}
