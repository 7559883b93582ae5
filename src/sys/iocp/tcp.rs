//! The stream, and the operation with which it lends the kernel a buffer.
//!
//! The phases of an operation, and what leads from one to the next:
//!
//! | phase | what happens | next phase |
//! | --- | --- | --- |
//! | `Idle` | `register`, and nothing is left unread: `WSARecv` | `Lent` |
//! | `Idle` | `register`, and something is left unread: we post a packet | `Posted` |
//! | `Idle` | `register`, while a thread reads the socket itself | `Deferred` |
//! | `Deferred` | the last of these reads returns | as after `register` |
//! | `Lent` | the receive's packet is dequeued | `Ended` |
//! | `Posted` | our packet is dequeued | `Ended` |
//! | `Ended` | `select`, and something is left unread: an event | `Idle` |
//! | `Ended` | `select`, and reads have consumed everything: no event | as after `register` |
//!
//! To register again in one of the last three phases only replaces the token.
//!
//! While `Lent`, the kernel may write to the `OVERLAPPED` and to the buffer, even after the stream was dropped. So they
//! live in an [`Operation`], to which there are two references: the stream's, and one in the selector on the kernel's
//! behalf.

use super::super::error::{belongs_to_another, failed_with};
use super::super::{recv, recv_vectored};
use super::{Selector, associate_with_port, ffi, last_error, lock, post_packet};
use crate::Token;
use std::cell::UnsafeCell;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::net::{self, Shutdown};
use std::ops::Range;
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak};
use std::time::Duration;
use std::{mem, ptr};

/// What a stream lends. This is no limit, because a read goes on with the socket itself when the buffer is empty; and a
/// larger one would cost its memory 10,000 times if there are 10,000 streams.
const BUFFER_SIZE: usize = 4096;

/// What one receive needs. A stream has one of these, and uses it for one receive after the other.
///
/// The selector gives up its reference when the stream is gone and no packet is to come any more: in `TcpStream::drop`,
/// in `Selector::on_packet`, or in `Selector::drop`.
pub struct Operation {
    overlapped: UnsafeCell<ffi::OVERLAPPED>,
    buffer: UnsafeCell<[u8; BUFFER_SIZE]>,
    /// Open until the stream is dropped.
    socket: RawSocket,
    /// Whose port the socket belongs to, from the first registration on.
    selector: OnceLock<Weak<Selector>>,
    state: Mutex<State>,
    /// Notified when a read need no longer wait for the phase to change.
    returned: Condvar,
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
    cancelled: Option<Cancel>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// Nothing is lent, and no packet will come.
    #[default]
    Idle,
    /// Registered during a direct read. A receive beside it would share the bytes with it, in no defined order. So the
    /// last of these reads starts the receive, and other reads wait for that.
    Deferred,
    /// The kernel has the `OVERLAPPED` and the buffer. A packet will come.
    Lent,
    /// Nothing is lent. A packet of our own will come.
    Posted,
    /// The packet was dequeued, and the operation is in the inbox of `select`.
    Ended,
}

/// Why we have cancelled a receive. Its error is then ours, and says nothing about the connection.
#[derive(Clone, Copy, PartialEq)]
pub enum Cancel {
    /// Its socket is about to be closed.
    StreamIsGone,
    LoopIsGone,
    ReadingIsShutDown,
}

impl State {
    /// A read has to wait: what comes next goes to the buffer, or to an earlier read.
    fn holds_up_reads(&self) -> bool {
        matches!(self.phase, Phase::Deferred | Phase::Lent)
    }

    fn is_packet_to_come(&self) -> bool {
        matches!(self.phase, Phase::Lent | Phase::Posted)
    }
}

// SAFETY: `overlapped` and `buffer` belong to the kernel while `Lent`, when we pass `overlapped` to system calls only.
// Otherwise they belong to the holder of the lock of `state`.
unsafe impl Send for Operation {}
// SAFETY: likewise.
unsafe impl Sync for Operation {}

impl Operation {
    fn new(socket: RawSocket) -> Operation {
        Operation {
            // SAFETY: all of it may be zero.
            overlapped: unsafe { mem::zeroed() },
            buffer: UnsafeCell::new([0; BUFFER_SIZE]),
            socket,
            selector: OnceLock::new(),
            state: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// A packet names its operation by this address.
    pub fn address(&self) -> usize {
        self.overlapped.get() as usize
    }

    pub fn register(&self, selector: &Selector, token: Token) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.token = token; // [token]
        match state.phase {
            Phase::Idle | Phase::Deferred => {
                self.arm(&mut state)?; // [arm]
                self.announce(selector, &mut state)
            }
            // The packet that will come finds the new token.
            Phase::Lent | Phase::Posted | Phase::Ended => Ok(()),
        }
    }

    /// Starts a receive now, or lets the last direct read start it. If there is something to read already, no receive is
    /// needed, and the phase remains `Idle`.
    fn arm(&self, state: &mut State) -> io::Result<()> {
        state.phase = match (&state.unread, state.direct_reads) {
            (Some(_), _) => Phase::Idle,
            (None, 1..) => Phase::Deferred,
            (None, 0) => match self.wsa_recv() {
                Ok(()) => Phase::Lent, // [lend]
                // The system has no room for the receive. That says nothing about the stream.
                Err(error @ (ffi::WSAENOBUFS | ffi::WSAEWOULDBLOCK)) => {
                    state.phase = Phase::Idle;
                    return Err(failed_with("WSARecv", io::Error::from_raw_os_error(error)));
                }
                Err(error) => {
                    state.unread = Some(Err(error));
                    Phase::Idle
                }
            },
        };
        Ok(())
    }

    /// If `arm` has found that there is no need to wait, posts the packet that a receive would have brought.
    fn announce(&self, selector: &Selector, state: &mut State) -> io::Result<()> {
        if state.phase == Phase::Idle {
            post_packet(&selector.port, self.overlapped.get())?;
            state.phase = Phase::Posted;
        }
        Ok(())
    }

    /// Lends the kernel what it needs. From `Ok` on that is the kernel's, even if there were bytes to receive at once:
    /// either way a packet comes. After an error none comes. (This thread may exit before the receive ends. Windows
    /// then cancels what it has started, but not on a handle that belongs to a port:
    /// <https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-exitthread>)
    fn wsa_recv(&self) -> Result<(), i32> {
        let (len, buf) = (BUFFER_SIZE as u32, self.buffer.get().cast());
        let (buffers, none, mut flags) = (ffi::WSABUF { len, buf }, ptr::null_mut(), 0);
        // SAFETY: the socket is open. `buffers` and `flags` are used until the call returns. `overlapped` and the
        // buffer are ours to lend, because `state` is locked and was not `Lent`; and they stay where they are until the
        // packet was dequeued, because until then the selector keeps a reference to this operation.
        let result = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSARecv(socket, &buffers, 1, none, &mut flags, overlapped, None)
        };
        match (result, last_error()) {
            (0, _) | (_, ffi::WSA_IO_PENDING) => Ok(()),
            (_, error) => Err(error),
        }
    }

    /// Handles a packet that was dequeued. Returns whether the stream is still there.
    pub fn on_packet(&self, status: usize) -> bool {
        let mut state = lock(&self.state);
        if state.cancelled == Some(Cancel::StreamIsGone) {
            state.phase = Phase::Idle;
            return false;
        }
        match state.phase {
            Phase::Lent => self.take_back(&mut state, status),
            Phase::Posted => state.phase = Phase::Ended,
            Phase::Idle | Phase::Deferred | Phase::Ended => (), // not a packet of ours
        }
        self.returned.notify_all();
        true
    }

    /// Ends the loan, and keeps the result of the receive. The thread that has dequeued the packet asks for it, because
    /// the kernel writes the result into the `OVERLAPPED` on behalf of that thread; other threads find it under the lock.
    fn take_back(&self, state: &mut State, status: usize) {
        let (mut n, mut flags) = (0, 0);
        // SAFETY: the socket is open, `overlapped` is where it was, and the numbers are used until the call returns.
        let is_complete = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSAGetOverlappedResult(socket, overlapped, &mut n, 0, &mut flags)
        };
        state.unread = match (is_complete, last_error(), state.cancelled) {
            // The receive goes on: this packet was posted by other software, which is not to have our address.
            (0, ffi::WSA_IO_INCOMPLETE, _) if status == 0 => return,
            // Wine, when the thread that has started the receive exits just as data arrives: it has ended, and read nothing.
            (0, ffi::WSA_IO_INCOMPLETE, _) => None,
            // The error's code would not say that we have caused it.
            (0, _, Some(Cancel::ReadingIsShutDown)) => Some(Ok(0..0)),
            (0, _, Some(_)) => None,
            (0, error, None) => Some(Err(error)),
            _ => Some(Ok(0..n as usize)),
        };
        state.phase = Phase::Ended; // [return]
    }

    /// Returns the token if there is an event, now that `select` has found the operation in its inbox.
    pub fn to_event(&self) -> Option<Token> {
        let mut state = lock(&self.state);
        if state.phase != Phase::Ended || state.cancelled == Some(Cancel::StreamIsGone) {
            return None;
        }
        // If reads have consumed everything already, there is no event yet: the registration waits on. If the system
        // refuses that, the event comes after all, as a hint to look and to register again.
        let _ = self.arm(&mut state);
        (state.phase == Phase::Idle).then_some(state.token)
    }

    /// Cancels any receive in flight. Call before closing the stream or the port. Returns whether a packet is still to
    /// come.
    pub fn cancel(&self, why: Cancel) -> bool {
        let mut state = lock(&self.state);
        if state.cancelled != Some(Cancel::StreamIsGone) {
            state.cancelled = Some(why);
            if state.phase == Phase::Lent {
                // Closing would cancel it too, but then Windows resets the connection:
                // <https://github.com/libuv/libuv/pull/3036>
                // This fails if the receive is complete; then its packet is on the way.
                // SAFETY: the socket is open, and the pointer only says which operation is meant.
                unsafe { ffi::CancelIoEx(self.socket as ffi::HANDLE, self.overlapped.get()) };
            }
        }
        state.is_packet_to_come()
    }

    pub fn is_packet_to_come(&self) -> bool {
        lock(&self.state).is_packet_to_come()
    }

    /// Call when the loop is gone, and a receive could not be cancelled: what it receives is lost to the stream.
    pub fn give_up(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Lent {
            state.unread = Some(Err(ffi::ERROR_OPERATION_ABORTED));
            state.phase = Phase::Idle;
        }
        self.returned.notify_all();
    }

    /// Waits until reads are no longer held up, or the timeout has expired.
    fn wait(&self, timeout_ms: u32) -> io::Result<()> {
        let state = &self.state;
        if let Some(selector) = self.selector() {
            return selector.dequeue_until(|| !lock(state).holds_up_reads(), timeout_ms);
        }
        // The loop is being dropped, and dequeues the last packets itself.
        let timeout = Duration::from_millis(timeout_ms.into());
        let is_held_up = |state: &mut State| state.holds_up_reads();
        drop(
            self.returned
                .wait_timeout_while(lock(state), timeout, is_held_up),
        );
        Ok(())
    }

    /// What a direct read finds, it need not share with a receive: `register` heeds `direct_reads`.
    fn end_direct_read(&self) {
        // Declared before the lock, and so dropped after it: if this is the last reference, `Selector::drop` locks
        // `state`.
        let selector = self.selector();
        let mut state = lock(&self.state);
        state.direct_reads -= 1;
        if state.phase != Phase::Deferred || state.direct_reads > 0 {
            return;
        }
        state.phase = Phase::Idle;
        if let Some(selector) = &selector {
            // If the system refuses the receive, the event comes as a hint. If it refuses even that, there is no way left to
            // tell the user.
            let _ = self.arm(&mut state);
            let _ = self.announce(selector, &mut state);
        }
        self.returned.notify_all();
    }

    fn selector(&self) -> Option<Arc<Selector>> {
        self.selector.get().and_then(Weak::upgrade)
    }
}

pub struct TcpStream {
    pub inner: net::TcpStream,
    is_nonblocking: AtomicBool,
    operation: Arc<Operation>,
}

impl TcpStream {
    pub fn new(inner: net::TcpStream) -> TcpStream {
        TcpStream {
            operation: Arc::new(Operation::new(inner.as_raw_socket())),
            is_nonblocking: AtomicBool::new(false),
            inner,
        }
    }

    /// The stream's operation, if the stream belongs to this selector; from now on it does, if it belonged to none.
    pub(super) fn attach(&self, selector: &Selector) -> io::Result<&Operation> {
        if self.operation.selector.get().is_none() {
            self.attach_first(selector)?;
        }
        // [own]
        match self.operation.selector.get() {
            Some(mine) if mine.ptr_eq(&selector.me) => Ok(&self.operation),
            _ => Err(belongs_to_another()),
        }
    }

    #[cold]
    fn attach_first(&self, selector: &Selector) -> io::Result<()> {
        // This lock lets one thread at a time pass that registers with this selector. If another selector was first,
        // the system refuses.
        let mut operations = lock(&selector.operations);
        if self.operation.selector.get().is_none() {
            associate_with_port(self.inner.as_raw_socket(), &selector.port)?; // [first]
        }
        self.operation.selector.get_or_init(|| {
            operations.insert(self.operation.address(), self.operation.clone());
            selector.me.clone()
        });
        Ok(())
    }

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)?;
        self.is_nonblocking.store(nonblocking, SeqCst);
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how)?;
        if how != Shutdown::Write {
            self.operation.cancel(Cancel::ReadingIsShutDown); // it would go on until the peer sends or closes
        }
        Ok(())
    }

    /// Reads what is in the buffer, and after that what is in the socket.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.read_buffer(&mut [IoSliceMut::new(buf)])? {
            Some(n) => Ok(n),
            None => self.read_directly(|socket| recv(socket, buf)),
        }
    }

    pub fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self.read_buffer(bufs)? {
            Some(n) => Ok(n),
            None => self.read_directly(|socket| recv_vectored(socket, bufs)),
        }
    }

    /// `None`: the buffer is empty. A direct read begins, and `read_directly` has to end it.
    fn read_buffer(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(Some(0)); // on Windows, to receive nothing may mean to wait
        }
        let operation = &*self.operation;
        let mut state = lock(&operation.state);
        while state.holds_up_reads() {
            drop(state);
            let is_nonblocking = self.is_nonblocking.load(SeqCst);
            operation.wait(if is_nonblocking { 0 } else { ffi::INFINITE })?;
            state = lock(&operation.state);
            if is_nonblocking && state.holds_up_reads() {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        match state.unread.take() {
            Some(Ok(unread)) => {
                // SAFETY: nothing is lent, and so the buffer belongs to the holder of the lock of `state`.
                let mut rest = &unsafe { &*operation.buffer.get() }[unread.clone()];
                let n = bufs
                    .iter_mut()
                    .map(|buf| rest.read(buf))
                    .sum::<io::Result<usize>>()?; // [read]
                if !rest.is_empty() {
                    state.unread = Some(Ok(unread.start + n..unread.end));
                }
                Ok(Some(n))
            }
            // As `std` has it, where the socket says so.
            Some(Err(ffi::WSAESHUTDOWN)) => Ok(Some(0)),
            Some(Err(error)) => Err(io::Error::from_raw_os_error(error)),
            None => {
                state.direct_reads += 1;
                Ok(None)
            }
        }
    }

    fn read_directly(
        &self,
        recv: impl FnOnce(&net::TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let result = recv(&self.inner);
        self.operation.end_direct_read();
        result
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        // `inner` is closed after this, so its number is still ours.
        let is_packet_to_come = self.operation.cancel(Cancel::StreamIsGone); // [take-back]
        if let (false, Some(selector)) = (is_packet_to_come, self.operation.selector()) {
            lock(&selector.operations).remove(&self.operation.address());
        }
    }
}

impl AsSocket for crate::TcpStream {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.0.inner.as_socket()
    }
}

impl AsRawSocket for crate::TcpStream {
    fn as_raw_socket(&self) -> RawSocket {
        self.0.inner.as_raw_socket()
    }
}
