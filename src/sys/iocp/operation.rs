//! What the kernel is lent for one operation after another, and who owns it when.
//!
//! | phase | what happens | next phase | call | event |
//! | --- | --- | --- | --- | --- |
//! | `Idle` | `register`, and nothing is unread | `Lent` | `WSARecv` | |
//! | `Idle` | `register`, and something is unread | `Posted` | `PostQueuedCompletionStatus` | |
//! | `Idle` | `register`, while a thread reads the socket itself | `Deferred` | | |
//! | `Idle` | `register`, after a `shutdown` of reading | `Posted` | `PostQueuedCompletionStatus` | |
//! | `Deferred` | `register` again | `Deferred` | | |
//! | `Deferred` | the last read of the socket itself returns | `Lent` | `WSARecv` | |
//! | `Deferred` | a read finds that the loop was dropped | `Idle` | | |
//! | `Lent` | `register` again | `Lent` | | |
//! | `Lent` | its packet is dequeued | `Ended` | `WSAGetOverlappedResult` | |
//! | `Lent` | `shutdown` of reading | `Lent` | `CancelIoEx` | |
//! | `Lent` | the source is dropped | `Lent` | `CancelIoEx` | |
//! | `Lent` | the loop is dropped | `Ended` | `CancelIoEx` | |
//! | `Posted` | `register` again | `Posted` | | |
//! | `Posted` | its packet is dequeued | `Ended` | | |
//! | `Ended` | `register` again | `Ended` | | |
//! | `Ended` | `select`, and something is unread | `Idle` | | yes |
//! | `Ended` | `select`, after a `shutdown` of reading | `Idle` | | yes |
//! | `Ended` | `select`, after reads have consumed everything | `Lent` | `WSARecv` | no |
//! | `Ended` | `select`, after the same, while a thread reads the socket itself | `Deferred` | | no |
//! | `Ended` | `select`, after the source was dropped | `Idle` | | no |
//!
//! A repeated `register` replaces the token. What waits for anything but reading a stream lends a question to AFD instead:
//! the same phases, without unread data and without `Deferred`.
//!
//! While `Lent`, the kernel may write to the `OVERLAPPED` and to what is lent with it, even after the source was dropped.
//! So there are two references to an [`Operation`]: the source's, and one in the selector on the kernel's behalf.

use super::super::error::failed_with_code;
use super::{RawEvent, Selector, afd, ffi, last_error, lock, post_packet};
use crate::{Interests, Token};
use std::cell::UnsafeCell;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::mem;
use std::ops::Range;
use std::os::windows::io::RawSocket;
use std::ptr;
use std::sync::{Arc, Mutex};

#[cfg(test)]
#[path = "transitions.rs"]
mod transitions;

/// What a stream lends to read. This is no limit, because a read goes on with the socket itself when the buffer is empty;
/// and a larger one would cost its memory 10,000 times if there are 10,000 streams.
const BUFFER_SIZE: usize = 4096;

/// A source has one of these for each direction, and uses it for one operation after another.
pub struct Operation {
    overlapped: UnsafeCell<ffi::OVERLAPPED>,
    lent: Lent,
    /// Open until the source is dropped.
    socket: ffi::SOCKET,
    interests: Interests,
    state: Mutex<State>,
}

/// What is lent besides the `OVERLAPPED`.
enum Lent {
    /// To `WSARecv`, which fills it.
    Buffer(Box<UnsafeCell<[u8; BUFFER_SIZE]>>),
    /// To AFD, which writes its answer over the question.
    Question(UnsafeCell<ffi::AFD_POLL_INFO>),
}

#[derive(Default)]
struct State {
    phase: Phase,
    token: Token,
    /// The result of a receive, as far as it has not been read: bytes of the buffer (none: the end of the stream), or an
    /// error.
    unread: Option<Result<Range<usize>, i32>>,
    /// How many threads are reading the socket itself, because nothing was lent when they came.
    direct_reads: usize,
    /// We have cancelled the operation, and it will not start again. Its error is ours, and says nothing about the
    /// connection.
    is_cancelled: bool,
    /// The socket is closed, or about to be.
    is_dropped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    /// Nothing is lent.
    #[default]
    Idle,
    /// Registered during a direct read. A receive beside it would share the bytes with it, in no defined order. So the
    /// last of these reads starts the receive, and other reads wait for that.
    Deferred,
    /// The kernel has the `OVERLAPPED` and what is lent with it. A packet will come.
    Lent,
    /// Nothing is lent. A packet of our own will come.
    Posted,
    /// Nothing is lent. The packet was dequeued, and the operation is in the inbox of `select`.
    Ended,
}

// SAFETY: `overlapped` and `lent` belong to the kernel while `Lent`, when we pass them to system calls only. Otherwise they
// belong to the holder of the lock of `state`.
unsafe impl Send for Operation {}
// SAFETY: likewise.
unsafe impl Sync for Operation {}

impl Operation {
    /// Waits until a stream can be read, by receiving.
    pub fn receiving(socket: RawSocket) -> Arc<Operation> {
        let buffer = Box::new(UnsafeCell::new([0; BUFFER_SIZE]));
        Operation::new(socket, Interests::READABLE, Lent::Buffer(buffer))
    }

    /// Waits for anything else, by asking AFD.
    pub fn asking(socket: RawSocket, interests: Interests) -> Arc<Operation> {
        // SAFETY: all of it may be zero.
        let question = unsafe { mem::zeroed() };
        Operation::new(socket, interests, Lent::Question(question))
    }

    fn new(socket: RawSocket, interests: Interests, lent: Lent) -> Arc<Operation> {
        Arc::new(Operation {
            // SAFETY: all of it may be zero.
            overlapped: unsafe { mem::zeroed() },
            lent,
            socket: socket as ffi::SOCKET,
            interests,
            state: Mutex::default(),
        })
    }

    /// A packet names its operation by this address.
    pub fn address(&self) -> usize {
        self.overlapped.get() as usize
    }

    pub fn register(self: &Arc<Self>, selector: &Selector, token: Token) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.token = token; // [token]
        match state.phase {
            Phase::Idle | Phase::Deferred => self.arm(selector, &mut state),
            Phase::Lent | Phase::Posted | Phase::Ended => Ok(()), // the event will have the new token
        }
    }

    /// Starts the operation, or lets the last direct read start it. If there is something to read already, or the direction
    /// was shut down, there is nothing to wait for, and the packet is one of our own.
    fn arm(self: &Arc<Self>, selector: &Selector, state: &mut State) -> io::Result<()> {
        if state.unread.is_some() || state.is_cancelled {
            return self.post(selector, state);
        }
        if state.direct_reads > 0 {
            state.phase = Phase::Deferred;
            return Ok(());
        }
        // [arm] Into the map before the start, because the packet may come before that returns.
        lock(&selector.operations).insert(self.address(), self.clone());
        let Err(code) = self.start() else {
            state.phase = Phase::Lent; // [lend]
            return Ok(());
        };
        lock(&selector.operations).remove(&self.address());
        state.phase = Phase::Idle;
        match (&self.lent, code) {
            (Lent::Question(_), _) => Err(failed_with_code("NtDeviceIoControlFile", code)),
            // The system has no room for the receive, which says nothing about the stream.
            (_, ffi::WSAENOBUFS | ffi::WSAEWOULDBLOCK) => Err(failed_with_code("WSARecv", code)),
            _ => {
                state.unread = Some(Err(code));
                self.post(selector, state)
            }
        }
    }

    fn post(self: &Arc<Self>, selector: &Selector, state: &mut State) -> io::Result<()> {
        state.phase = Phase::Idle;
        lock(&selector.operations).insert(self.address(), self.clone());
        post_packet(&selector.port, self.overlapped.get())
            .inspect(|()| state.phase = Phase::Posted)
            .inspect_err(|_| drop(lock(&selector.operations).remove(&self.address())))
    }

    /// Lends the kernel what it needs. From `Ok` on that is the kernel's, even if the operation has completed at once:
    /// either way a packet comes. After an error none comes. (This thread may exit before the operation ends. Windows
    /// then cancels what it has started, but not on a handle that belongs to a port:
    /// <https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-exitthread>)
    fn start(&self) -> Result<(), i32> {
        let (socket, overlapped) = (self.socket, self.overlapped.get());
        match &self.lent {
            // SAFETY: the socket is open. `overlapped` and the buffer are ours to lend, because `state` is locked and was not
            // `Lent`; and they stay where they are until the packet was dequeued, because until then the selector keeps a
            // reference to this operation.
            Lent::Buffer(buffer) => unsafe { wsa_recv(socket, buffer.get(), overlapped) },
            // SAFETY: likewise.
            Lent::Question(place) => unsafe {
                afd::ask(socket, self.interests, place.get(), overlapped)
            },
        }
    }

    /// Ends the loan, because a packet with this status was dequeued. Returns `false` if the packet is not the operation's.
    ///
    /// The thread that has dequeued the packet asks for the result, because the kernel writes that into the `OVERLAPPED` on
    /// behalf of that thread; other threads find it under the lock.
    pub fn take_back(&self, status: i32) -> bool {
        let mut state = lock(&self.state);
        if state.phase == Phase::Lent && !state.is_dropped {
            let (mut n, mut flags) = (0, 0);
            let overlapped = self.overlapped.get();
            // SAFETY: the socket is open, `overlapped` is where it was, and the numbers are used until the call returns.
            let is_complete = unsafe {
                ffi::WSAGetOverlappedResult(self.socket, overlapped, &mut n, 0, &mut flags)
            };
            let result = match (is_complete, last_error()) {
                // The operation goes on. Other software must have posted this packet, with our address.
                (0, ffi::WSA_IO_INCOMPLETE) if status == 0 => return false,
                // Wine, if the thread that has started the operation exits just as data arrives: it has ended without a
                // result.
                (0, ffi::WSA_IO_INCOMPLETE) => None,
                // The error's code would not say that we have caused it.
                (0, _) if state.is_cancelled => None,
                (0, error) => Some(Err(error)),
                _ => Some(Ok(0..n as usize)),
            };
            if let Lent::Buffer(_) = self.lent {
                state.unread = result;
            }
        }
        state.phase = Phase::Ended; // [return]
        true
    }

    /// The event, if there is one, now that `select` has found the operation in its inbox.
    pub fn to_event(self: &Arc<Self>, selector: &Selector) -> Option<RawEvent> {
        let mut state = lock(&self.state);
        state.phase = Phase::Idle;
        // If reads have consumed everything already, there is no event yet: the registration waits on. If the system refuses
        // that, the event comes after all, as a hint to look and to register again.
        let is_receive = matches!(self.lent, Lent::Buffer(_));
        let is_consumed = is_receive && state.unread.is_none() && !state.is_cancelled;
        if state.is_dropped || is_consumed && self.arm(selector, &mut state).is_ok() {
            return None;
        }
        Some(RawEvent {
            token: state.token,
            interests: self.interests,
        })
    }

    /// Cancels the operation if it is in flight. Call before closing the socket or the port, and when the direction was shut
    /// down.
    pub fn cancel(&self, is_dropped: bool) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Lent && !state.is_dropped {
            // Closing would cancel it too, but then Windows resets the connection:
            // <https://github.com/libuv/libuv/pull/3036>
            // This fails if the operation has completed; then its packet is on the way.
            // SAFETY: the socket is open, and the pointer only says which operation is meant.
            unsafe { ffi::CancelIoEx(self.socket as ffi::HANDLE, self.overlapped.get()) };
        }
        state.is_cancelled = true;
        state.is_dropped |= is_dropped;
    }

    /// Call when the loop is gone, and the operation could not be cancelled: what it still receives is lost to the stream.
    pub fn give_up(&self) {
        let mut state = lock(&self.state);
        state.unread = Some(Err(ffi::ERROR_OPERATION_ABORTED));
        state.phase = Phase::Idle;
    }

    /// Whether a read has to wait, because what comes next goes to the buffer, or to an earlier read.
    pub fn holds_up_reads(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Deferred | Phase::Lent)
    }

    /// Reads what is in the buffer. `None`: it is empty, and a direct read begins, which `end_direct_read` has to end.
    /// `WouldBlock`: the read has to wait.
    pub fn read_buffer(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let mut state = lock(&self.state);
        match (state.phase, state.unread.take(), &self.lent) {
            (Phase::Deferred | Phase::Lent, ..) => Err(ErrorKind::WouldBlock.into()),
            (_, Some(Ok(unread)), Lent::Buffer(buffer)) => {
                // SAFETY: nothing is lent, and so the buffer belongs to the holder of the lock of `state`.
                let mut rest = &unsafe { &*buffer.get() }[unread.clone()];
                let counts = bufs.iter_mut().map(|buf| rest.read(buf));
                let n = counts.sum::<io::Result<usize>>()?; // [read]
                if !rest.is_empty() {
                    state.unread = Some(Ok(unread.start + n..unread.end));
                }
                Ok(Some(n))
            }
            // As `std` has it, where the socket says so.
            (_, Some(Err(ffi::WSAESHUTDOWN)), _) => Ok(Some(0)),
            (_, Some(Err(error)), _) => Err(io::Error::from_raw_os_error(error)),
            _ => {
                state.direct_reads += 1;
                Ok(None)
            }
        }
    }

    /// Call when a direct read has returned. Starts the receive that was put off for it.
    pub fn end_direct_read(self: &Arc<Self>, selector: Option<&Selector>) {
        let mut state = lock(&self.state);
        state.direct_reads -= 1;
        if let (Phase::Deferred, 0, Some(selector)) = (state.phase, state.direct_reads, selector) {
            // If the system refuses the receive, the event comes as a hint. If it refuses even the packet for that, there is no
            // way left to tell the user.
            let result = self.arm(selector, &mut state);
            let _ = result.or_else(|_| self.post(selector, &mut state));
        }
    }

    /// Call when the loop is gone, and the receive that was put off will not start.
    pub fn forget_deferred(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Deferred {
            state.phase = Phase::Idle;
        }
    }
}

/// # Safety
///
/// The socket is open, and `buffer` and `overlapped` stay valid, and are used by the kernel alone, until the packet was
/// dequeued. After an error they are the caller's again.
unsafe fn wsa_recv(
    socket: ffi::SOCKET,
    buffer: *mut [u8; BUFFER_SIZE],
    overlapped: *mut ffi::OVERLAPPED,
) -> Result<(), i32> {
    let (len, buf) = (BUFFER_SIZE as u32, buffer.cast());
    let (buffers, none, mut flags) = (ffi::WSABUF { len, buf }, ptr::null_mut(), 0);
    // SAFETY: as the caller says. `buffers` and `flags` are used until the call returns.
    let result = unsafe { ffi::WSARecv(socket, &buffers, 1, none, &mut flags, overlapped, None) };
    match (result, last_error()) {
        (0, _) | (_, ffi::WSA_IO_PENDING) => Ok(()),
        (_, error) => Err(error),
    }
}
