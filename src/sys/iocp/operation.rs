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
//! | `Deferred` | `shutdown` of reading | `Posted` | `PostQueuedCompletionStatus` | |
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
//! A repeated `register` replaces the token. An operation that does not wait to read a stream lends a question to AFD,
//! and not a buffer. It has the same phases, but no unread data and no `Deferred`. It starts with
//! `NtDeviceIoControlFile` instead of `WSARecv`, and when `select` takes it out of the inbox, it becomes an event,
//! unless its source was dropped.
//!
//! Not in the table: if `WSARecv` fails at once, its error becomes unread, and the next phase is `Posted`. (But if the
//! system has no memory for the receive, `register` returns the error, and the next phase is `Idle`.) If the
//! source is dropped in another phase than `Lent`, no call is made, and none is made when the packet of a dropped
//! source is dequeued.
//!
//! While `Lent`, the kernel may write to the `OVERLAPPED` and to what is lent with it, even after the source was
//! dropped. So there are two references to an [`Operation`]: the source's, and one in the selector on the kernel's
//! behalf.

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

/// The size of the buffer that a stream lends to read. It does not limit how much a program can read, because a read
/// uses the socket itself when the buffer is empty. A larger buffer would cost memory for every stream.
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
    /// The part of a receive's result that no read has returned yet: bytes of the buffer (an empty range is the end of
    /// the stream), or an error.
    unread: Option<Result<Range<usize>, i32>>,
    /// How many threads are reading the socket itself, because nothing was lent when they started.
    direct_reads: usize,
    /// We have cancelled the operation, and it will not start again. Its error comes from us, and says nothing about
    /// the connection.
    is_cancelled: bool,
    /// The socket is closed, or about to be.
    is_dropped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    /// Nothing is lent.
    #[default]
    Idle,
    /// Registered during a direct read. If a receive started now, both would get bytes in no defined order. So the last
    /// of these reads starts the receive, and other reads wait for it.
    Deferred,
    /// The kernel owns the `OVERLAPPED` and what is lent with it. A packet will come.
    Lent,
    /// Nothing is lent. A packet of our own will come.
    Posted,
    /// Nothing is lent. The packet was dequeued, and the operation is in the inbox of `select`.
    Ended,
}

// SAFETY: `overlapped` and `lent` belong to the kernel while `Lent`, and we only pass them to system calls then.
// Otherwise they belong to the thread that holds the lock of `state`. (The exception is `give_up`.)
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
        Operation::new(socket, interests, Lent::Question(unsafe { mem::zeroed() }))
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
            Phase::Idle => self.arm(selector, &mut state),
            _ => Ok(()), // the event will have the new token
        }
    }

    /// Starts the operation, or lets the last direct read start it. If there is something unread, or the direction was
    /// shut down, there is nothing to wait for, so we post a packet instead.
    fn arm(self: &Arc<Self>, selector: &Selector, state: &mut State) -> io::Result<()> {
        state.phase = Phase::Idle;
        if state.unread.is_some() || state.is_cancelled {
            return self.post(selector, state);
        }
        if state.direct_reads > 0 {
            state.phase = Phase::Deferred;
            return Ok(());
        }
        // [arm] The map needs the operation before the start, because the packet may come before `start` returns.
        lock(&selector.operations).insert(self.address(), self.clone());
        let Err(code) = self.start() else {
            state.phase = Phase::Lent; // [lend]
            return Ok(());
        };
        lock(&selector.operations).remove(&self.address());
        match (&self.lent, code) {
            (Lent::Question(_), _) => Err(failed_with_code("NtDeviceIoControlFile", code)),
            // The system has no memory for the receive; the stream may be intact.
            (_, ffi::WSAENOBUFS | ffi::WSAEWOULDBLOCK) => Err(failed_with_code("WSARecv", code)),
            _ => {
                state.unread = Some(Err(code));
                self.post(selector, state)
            }
        }
    }

    fn post(self: &Arc<Self>, selector: &Selector, state: &mut State) -> io::Result<()> {
        lock(&selector.operations).insert(self.address(), self.clone());
        post_packet(&selector.port, self.overlapped.get())
            .inspect(|()| state.phase = Phase::Posted)
            .inspect_err(|_| drop(lock(&selector.operations).remove(&self.address())))
    }

    /// Lends the kernel what it needs. After `Ok` the kernel owns it, even if the operation has completed at once,
    /// because a packet comes either way. After an error no packet comes. (This thread may exit before the operation
    /// ends. Windows cancels what an exiting thread has started, but not on a handle that belongs to a port:
    /// <https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-exitthread>)
    fn start(&self) -> Result<(), i32> {
        let (socket, overlapped) = (self.socket, self.overlapped.get());
        match &self.lent {
            Lent::Buffer(buffer) => {
                let (len, buf) = (BUFFER_SIZE as u32, buffer.get().cast());
                let (buffers, n, mut flags) = (ffi::WSABUF { len, buf }, ptr::null_mut(), 0);
                // SAFETY: the socket is open. `overlapped` and the buffer are ours to lend, because `state` is locked
                // and was not `Lent`. They stay where they are until the packet is dequeued, because the selector keeps
                // a reference to this operation until then. The kernel uses the rest only until the call returns.
                let result =
                    unsafe { ffi::WSARecv(socket, &buffers, 1, n, &mut flags, overlapped, None) };
                match (result, last_error()) {
                    (0, _) | (_, ffi::WSA_IO_PENDING) => Ok(()),
                    (_, error) => Err(error),
                }
            }
            // SAFETY: likewise.
            Lent::Question(place) => unsafe {
                afd::ask(socket, self.interests, place.get(), overlapped)
            },
        }
    }

    /// Ends the loan, because a packet with this status was dequeued. Returns `false` if the packet is not the
    /// operation's.
    ///
    /// The thread that has dequeued the packet asks for the result, because the kernel writes the result into the
    /// `OVERLAPPED` on behalf of this thread. Other threads find it under the lock.
    pub fn take_back(&self, status: i32) -> bool {
        let mut state = lock(&self.state);
        if state.phase == Phase::Lent && !state.is_dropped {
            let (overlapped, mut n, mut flags) = (self.overlapped.get(), 0, 0);
            // SAFETY: the socket is open, `overlapped` has not moved, and the kernel uses the numbers only until the
            // call returns.
            let is_complete = unsafe {
                ffi::WSAGetOverlappedResult(self.socket, overlapped, &mut n, 0, &mut flags)
            };
            let result = match (is_complete, last_error()) {
                // The operation is still in flight. Other software must have posted this packet with our address.
                (0, ffi::WSA_IO_INCOMPLETE) if status == 0 => return false,
                // On Wine, if the thread that started the operation exits just as data arrives, the operation ends
                // without a result.
                (0, ffi::WSA_IO_INCOMPLETE) => None,
                // The code of the error does not tell that we have caused it.
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

    /// Returns the event, if there is one. Call when `select` has found the operation in its inbox.
    pub fn to_event(self: &Arc<Self>, selector: &Selector) -> Option<RawEvent> {
        let mut state = lock(&self.state);
        state.phase = Phase::Idle;
        // If reads have consumed everything, there is no event yet, and the operation starts again. If the system
        // refuses this, there is an event after all, as a hint to read and to register again.
        let is_receive = matches!(self.lent, Lent::Buffer(_));
        let is_consumed = is_receive && state.unread.is_none() && !state.is_cancelled;
        if state.is_dropped || is_consumed && self.arm(selector, &mut state).is_ok() {
            return None;
        }
        Some(RawEvent(state.token, self.interests))
    }

    /// Cancels the operation if it is in flight. Call before closing the port, and when the direction was shut down.
    pub fn cancel(&self) {
        self.cancel_locked(&mut lock(&self.state));
    }

    /// Cancels the operation permanently: it will make no event. Call before closing the socket. All this happens under
    /// one lock, because otherwise a `select` could find the cancelled operation in between, and make an event of it.
    pub fn retire(&self) {
        let mut state = lock(&self.state);
        self.cancel_locked(&mut state);
        state.is_dropped = true;
    }

    fn cancel_locked(&self, state: &mut State) {
        if state.phase == Phase::Lent && !state.is_dropped {
            // Closing the socket would end it too, but Windows resets a connection that is closed during a receive:
            // <https://github.com/libuv/libuv/pull/3036>
            // This call fails if the operation has completed; then its packet is in the port.
            // SAFETY: the socket is open, and the pointer only says which operation is meant.
            unsafe { ffi::CancelIoEx(self.socket as ffi::HANDLE, self.overlapped.get()) };
        }
        state.is_cancelled = true;
    }

    /// Call when the loop is gone and the packet has not come. If the operation is `Lent`, the stream loses what it
    /// still receives. The kernel may then still write to the memory, although the phase is `Idle`. But no thread uses
    /// the memory any more: no selector is left to start the operation, and `unread` names no bytes of the buffer.
    pub fn give_up(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Lent {
            state.unread = Some(Err(ffi::ERROR_OPERATION_ABORTED));
        }
        state.phase = Phase::Idle;
    }

    /// Returns whether a read must wait, because the next bytes go to the buffer or to an earlier read.
    pub fn holds_up_reads(&self) -> bool {
        matches!(lock(&self.state).phase, Phase::Deferred | Phase::Lent)
    }

    /// Reads from the buffer. Returns `None` if the buffer is empty: then a direct read begins, and the caller must
    /// call `end_direct_read`. Fails with `WouldBlock` if the read must wait.
    pub fn read_buffer(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let mut state = lock(&self.state);
        match (state.phase, state.unread.take(), &self.lent) {
            (Phase::Deferred | Phase::Lent, ..) => Err(ErrorKind::WouldBlock.into()),
            (_, Some(Ok(unread)), Lent::Buffer(buffer)) => {
                // SAFETY: nothing is lent, so the buffer belongs to the thread that holds the lock of `state`.
                let mut rest = &unsafe { &*buffer.get() }[unread.clone()];
                let counts = bufs.iter_mut().map(|buf| rest.read(buf));
                let n = counts.sum::<io::Result<usize>>()?; // [read]
                if !rest.is_empty() {
                    state.unread = Some(Ok(unread.start + n..unread.end));
                }
                Ok(Some(n))
            }
            // `std` also turns this error into the end of the stream.
            (_, Some(Err(ffi::WSAESHUTDOWN)), _) => Ok(Some(0)),
            (_, Some(Err(error)), _) => Err(io::Error::from_raw_os_error(error)),
            _ => {
                state.direct_reads += 1;
                Ok(None)
            }
        }
    }

    /// Call when a direct read has returned, and `start_deferred` after it.
    pub fn end_direct_read(&self) {
        lock(&self.state).direct_reads -= 1;
    }

    /// Carries out a deferred registration: starts the receive when the last direct read has ended, or posts a packet
    /// when reading was shut down. (On Windows a `shutdown` does not end a read that already waits:
    /// <https://github.com/rust-lang/rust/issues/121594>)
    pub fn start_deferred(self: &Arc<Self>, selector: Option<&Selector>) {
        let mut state = lock(&self.state);
        let is_due = state.direct_reads == 0 || state.is_cancelled;
        if let (Phase::Deferred, true, Some(selector)) = (state.phase, is_due, selector) {
            // If the system refuses the receive, a packet makes `select` try again. If it refuses the packet too, there
            // is no way left to tell the user.
            let result = self.arm(selector, &mut state);
            let _ = result.or_else(|_| self.post(selector, &mut state));
        }
    }

    /// Call when the loop is gone, so that a deferred receive will not start.
    pub fn forget_deferred(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Deferred {
            state.phase = Phase::Idle;
        }
    }
}
