//! What does it cost to wait for one socket that is ready, among many that are not? With `select` and `poll`, which are told
//! of all sockets with each call, and with epoll, which was told before. Linux. Prints a table:
//! `rustc --edition 2024 -O .ci/watched.rs -o target/watched && target/watched`, or `.ci/run watched`.

use std::ffi::{c_int, c_short, c_ulong, c_void};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, null_mut};
use std::time::{Duration, Instant};

#[repr(C)]
struct PollFd {
    fd: RawFd,
    events: c_short,
    revents: c_short,
}

#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
struct EpollEvent {
    events: u32,
    data: u64,
}

#[repr(C)]
struct Limit {
    soft: c_ulong,
    hard: c_ulong,
}

const POLLIN: c_short = 1;
const EPOLLIN: u32 = 1;
const EPOLLONESHOT: u32 = 1 << 30;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_MOD: c_int = 3;
const RLIMIT_NOFILE: c_int = 7;
const FD_SETSIZE: usize = 1024;

unsafe extern "C" {
    fn select(
        n: c_int,
        r: *mut c_void,
        w: *mut c_void,
        e: *mut c_void,
        timeout: *mut c_void,
    ) -> c_int;
    fn poll(fds: *mut PollFd, n: c_ulong, timeout: c_int) -> c_int;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epoll: c_int, op: c_int, fd: RawFd, event: *mut EpollEvent) -> c_int;
    fn epoll_wait(epoll: c_int, events: *mut EpollEvent, room: c_int, timeout: c_int) -> c_int;
    fn getrlimit(resource: c_int, limit: *mut Limit) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
}

/// Sockets of which the last is ready, and stays so, because nothing reads from it.
struct Sockets(Vec<UdpSocket>);

impl Sockets {
    fn new(n: usize) -> io::Result<Sockets> {
        let sockets = (0..n).map(|_| UdpSocket::bind("127.0.0.1:0"));
        let sockets: Vec<_> = sockets.collect::<io::Result<_>>()?;
        let last = sockets.last().expect("there is one");
        last.send_to(b"!", last.local_addr()?)?;
        last.peek(&mut [0])?;
        Ok(Sockets(sockets))
    }

    fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd)
    }
}

/// The time of one call: the best of several measurements, because a busy machine only ever adds to it.
fn time(mut call: impl FnMut() -> c_int) -> Duration {
    let measure = |_| {
        let (started, mut calls) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_millis(10) {
            assert_eq!(call(), 1, "one is ready");
            calls += 1;
        }
        started.elapsed() / calls
    };
    (0..10).map(measure).min().expect("ten measurements")
}

/// `None` if there is a descriptor that has no bit in an `fd_set`.
fn time_select(sockets: &Sockets) -> Option<Duration> {
    let max = sockets
        .fds()
        .max()
        .filter(|max| (*max as usize) < FD_SETSIZE)?;
    let mut asked = [0_u64; FD_SETSIZE / 64];
    sockets
        .fds()
        .for_each(|fd| asked[fd as usize / 64] |= 1 << (fd % 64));
    Some(time(|| {
        let mut bits = asked; // because the call writes its answer over the question
        // SAFETY: the pointers are null, or lead to as many bits as `fd_set` has, for the time of the call.
        unsafe {
            select(
                max + 1,
                bits.as_mut_ptr().cast(),
                null_mut(),
                null_mut(),
                null_mut(),
            )
        }
    }))
}

fn time_poll(sockets: &Sockets) -> Duration {
    let question = |fd| PollFd {
        fd,
        events: POLLIN,
        revents: 0,
    };
    let mut fds: Vec<_> = sockets.fds().map(question).collect();
    // SAFETY: there are `len` entries, for the time of the call.
    time(|| unsafe { poll(fds.as_mut_ptr(), fds.len() as c_ulong, -1) })
}

/// Level-triggered, the kernel is asked once for all calls. One-shot, each call is asked for by a call of its own.
fn time_epoll(sockets: &Sockets, flags: u32) -> Duration {
    let mut events = [EpollEvent { events: 0, data: 0 }; 16];
    let mut event = EpollEvent {
        events: EPOLLIN | flags,
        data: 0,
    };
    let last = sockets.fds().last().expect("there is one");
    // SAFETY: the pointers lead to an event, or to 16, for the time of each call.
    unsafe {
        let epoll = epoll_create1(0); // open until the program ends
        for fd in sockets.fds() {
            assert_eq!(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &mut event), 0);
        }
        time(|| {
            if flags != 0 {
                assert_eq!(epoll_ctl(epoll, EPOLL_CTL_MOD, last, &mut event), 0);
            }
            epoll_wait(epoll, events.as_mut_ptr(), 16, -1)
        })
    }
}

fn allow_many_descriptors() {
    let mut limit = Limit { soft: 0, hard: 0 };
    // SAFETY: the pointers lead to a limit, for the time of each call.
    unsafe {
        getrlimit(RLIMIT_NOFILE, &mut limit);
        limit.soft = limit.hard;
        setrlimit(RLIMIT_NOFILE, ptr::from_ref(&limit));
    }
}

fn main() -> io::Result<()> {
    allow_many_descriptors();
    println!("| sockets | `select` | `poll` | `epoll_wait` | the same, one-shot |");
    println!("| --- | --- | --- | --- | --- |");
    let mut last = None;
    for n in [10, 100, 1000, 10_000] {
        let sockets = Sockets::new(n)?;
        let us = |time: Duration| format!("{:.1} µs", time.as_nanos() as f64 / 1000.0);
        let select = time_select(&sockets).map_or("impossible".to_string(), us);
        let (poll, level) = (time_poll(&sockets), time_epoll(&sockets, 0));
        let one_shot = time_epoll(&sockets, EPOLLONESHOT);
        println!(
            "| {n} | {select} | {} | {} | {} |",
            us(poll),
            us(level),
            us(one_shot)
        );
        last = Some((poll, one_shot));
    }
    let (poll, one_shot) = last.expect("there were some");
    assert!(poll > 10 * one_shot, "the point of it");
    Ok(())
}
