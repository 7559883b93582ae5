//! The stream, and the operation with which it lends the kernel a buffer.
//!
//! ```text
//!            register: WSARecv                                  poll has the packet: an event
//!   Idle ------------------------------> Receiving -----------------------------------------------> Idle
//!    |                                       |                                                       ^
//!    |                                       |  read: it is complete already                         |
//!    |  register: something is left unread   v                       poll has the packet: an event,  |
//!    +--------------------------------> PacketPending -----------------------------------------------+
//!             (we post a packet)                                     if there is still something to read
//! ```
//!
//! There is a fourth phase, `Deferred`: registered while another thread was reading the socket itself; the receive
//! starts when that read returns. And if a read consumes everything before `poll` has the packet, that packet is no
//! event: a new receive starts instead.
//!
//! While `Receiving`, the kernel may write to the `OVERLAPPED` and to the buffer, even after the stream was dropped. So
//! they live in an [`Operation`], to which there are two references: the stream's, and one in the selector on the
//! kernel's behalf.

use super::super::error::{belongs_to_another, failed_with};
use super::super::recv;
use super::{Selector, associate_with_port, ffi, last_error, lock, post_packet};
use crate::Token;
use std::cell::UnsafeCell;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::{mem, net, ptr};

/// What a stream lends. This is no limit, because a read goes on with the socket itself when the buffer is empty; and a
/// larger one would cost its memory 10,000 times if there are 10,000 streams.
const BUFFER_SIZE: usize = 4096;

/// How often a blocking read looks for its packet. Nothing promises that the socket's handle is signaled before somebody
/// takes the packet, and perhaps nobody else does; and the next operation on the handle, such as a write, resets it.
const RECHECK_MS: u32 = 10;

/// What one receive needs. A stream has one of these, and uses it for one receive after the other.
///
/// The selector gives up its reference when the stream is gone and no packet is to come any more: in `TcpStream::drop`,
/// in [`on_packet`](Operation::on_packet), or in `Selector::drop`.
pub struct Operation {
    overlapped: UnsafeCell<ffi::OVERLAPPED>,
    buffer: UnsafeCell<[u8; BUFFER_SIZE]>,
    /// Open until `State::is_dropped`.
    socket: RawSocket,
    /// Whose port the socket belongs to, from the first registration on.
    selector: OnceLock<Weak<Selector>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    token: Token,
    /// What the receive brought and nobody has read yet: some bytes of the buffer (none: the end of the stream), or an
    /// error.
    unread: Option<Result<Range<usize>, i32>>,
    /// How many threads are reading the socket itself, because nothing was lent when they came.
    direct_reads: usize,
    /// The stream or the selector is going away, and nothing is to start any more.
    is_cancelled: bool,
    /// The stream is gone, its socket about to be closed.
    is_dropped: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// Nothing is lent, and no packet will come.
    #[default]
    Idle,
    /// Registered during a direct read. A receive beside it would share the bytes with it, in no defined order. So the
    /// last of these reads starts the receive.
    Deferred,
    /// The kernel has the `OVERLAPPED` and the buffer. A packet will come.
    Receiving,
    /// Nothing is lent, but there is a packet that `select` has not handled: the receive's, or one that we have posted.
    PacketPending,
}

// SAFETY: `overlapped` and `buffer` belong to the kernel while `Receiving`, when we pass `overlapped` to system calls
// only. Otherwise they belong to the holder of the lock of `state`.
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
        }
    }

    /// By this a packet names its operation.
    pub fn address(&self) -> usize {
        self.overlapped.get() as usize
    }

    pub fn register(&self, selector: &Selector, token: Token) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.token = token; // [token]
        match state.phase {
            Phase::Idle | Phase::Deferred => self.arm(selector, &mut state),
            // The packet that will come finds the new token.
            Phase::Receiving | Phase::PacketPending => Ok(()),
        }
    }

    fn arm(&self, selector: &Selector, state: &mut State) -> io::Result<()> {
        // [arm]
        if !self.start_receive(state)? {
            // Unread data is an event too, so we post the packet that a receive would have brought.
            post_packet(&selector.port, self.overlapped.get())?;
            state.phase = Phase::PacketPending;
        }
        Ok(())
    }

    /// Starts a receive, at once or when the direct reads have returned; returns `true` either way. `false`: there is
    /// something to read already, so no receive is needed.
    fn start_receive(&self, state: &mut State) -> io::Result<bool> {
        if state.unread.is_some() {
            return Ok(false);
        }
        if state.direct_reads > 0 {
            state.phase = Phase::Deferred;
            return Ok(true);
        }
        match self.wsa_recv() {
            Ok(()) => state.phase = Phase::Receiving, // [lend]
            // The system has no room for it. That says nothing about the stream.
            Err(error @ (ffi::WSAENOBUFS | ffi::WSAEWOULDBLOCK)) => {
                return Err(failed_with("WSARecv", io::Error::from_raw_os_error(error)));
            }
            Err(error) => state.unread = Some(Err(error)),
        }
        Ok(state.unread.is_none())
    }

    /// Lends the kernel what it needs. From `Ok` on that is the kernel's, even if there were bytes to receive at once:
    /// either way a packet comes. After an error none comes. (This thread may exit before the receive ends. Windows
    /// then cancels what it has started, but not on a handle that belongs to a port:
    /// <https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-exitthread>)
    fn wsa_recv(&self) -> Result<(), i32> {
        let (len, buf) = (BUFFER_SIZE as u32, self.buffer.get().cast());
        let (buffers, none, mut flags) = (ffi::WSABUF { len, buf }, ptr::null_mut(), 0);
        // SAFETY: the socket is open. `buffers` and `flags` are used until the call returns. `overlapped` and the
        // buffer are ours to lend, for `state` is locked and was not `Receiving`; and they stay where they are until
        // the packet was taken, for until then the selector keeps a reference to this operation.
        let result = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSARecv(socket, &buffers, 1, none, &mut flags, overlapped, None)
        };
        match (result, last_error()) {
            (0, _) | (_, ffi::WSA_IO_PENDING) => Ok(()),
            (_, error) => Err(error),
        }
    }

    /// If the receive is complete, keeps what it brought. That ends the loan; but its packet has yet to be handled, and
    /// until then this operation must stay where it is.
    fn check_receive(&self, state: &mut State) {
        if state.phase != Phase::Receiving {
            return;
        }
        let (mut n, mut flags) = (0, 0);
        // SAFETY: the socket is open, `overlapped` is where it was, and the numbers are used until the call returns.
        let is_complete = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSAGetOverlappedResult(socket, overlapped, &mut n, 0, &mut flags)
        };
        state.unread = match (is_complete, last_error()) {
            (0, ffi::WSA_IO_INCOMPLETE) => return,
            // We have cancelled it, which is no news for a reader. The error's code would not say that it was us.
            (0, _) if state.is_cancelled => None,
            (0, error) => Some(Err(error)),
            _ => Some(Ok(0..n as usize)),
        };
        state.phase = Phase::PacketPending; // [return]
    }

    /// Handles a packet that was taken from the port. Returns the token if it is an event.
    pub fn on_packet(&self, selector: &Selector) -> Option<Token> {
        let mut state = lock(&self.state);
        if state.is_dropped {
            lock(&selector.operations).remove(&self.address());
        } else {
            self.check_receive(&mut state);
        }
        state.phase = Phase::Idle;
        if state.is_cancelled {
            return None;
        }
        // If a read has consumed everything already, there is no event yet: the registration waits on. If it cannot,
        // the event comes after all, as a hint to look and to register again.
        let waits_on = self.start_receive(&mut state).unwrap_or(false);
        (!waits_on).then_some(state.token)
    }

    /// For the time before the stream or the port is closed. Returns whether there is a packet still to handle.
    pub fn cancel(&self, is_dropped: bool) -> bool {
        let mut state = lock(&self.state);
        if state.phase == Phase::Receiving && !state.is_dropped {
            // Closing would cancel it too, but then Windows resets the connection:
            // <https://github.com/libuv/libuv/pull/3036>
            // This fails if the receive is complete; then its packet is on the way to `on_packet`.
            // SAFETY: the socket is open, and the pointer only says which operation is meant.
            unsafe { ffi::CancelIoEx(self.socket as ffi::HANDLE, self.overlapped.get()) };
        }
        state.is_cancelled = true;
        state.is_dropped |= is_dropped;
        matches!(state.phase, Phase::Receiving | Phase::PacketPending)
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

    /// What is in the buffer, and after that what is in the socket.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0); // on Windows, to receive nothing may mean to wait
        }
        let operation = &*self.operation;
        let mut state = lock(&operation.state);
        while state.phase == Phase::Receiving {
            drop(state);
            let result = operation.selector().map_or(Ok(()), |it| it.take_packets());
            state = lock(&operation.state);
            operation.check_receive(&mut state);
            if state.phase == Phase::Receiving {
                result?; // not before: what is here can be read although the port fails
                if self.is_nonblocking.load(SeqCst) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                drop(state);
                // SAFETY: the socket is open, and no pointer is passed.
                unsafe { ffi::WaitForSingleObject(operation.socket as ffi::HANDLE, RECHECK_MS) };
                state = lock(&operation.state);
            }
        }
        match state.unread.take() {
            Some(Ok(unread)) => {
                let n = unread.len().min(buf.len());
                // SAFETY: nothing is lent, and so the buffer belongs to the holder of the lock of `state`.
                let buffer = unsafe { &*operation.buffer.get() };
                buf[..n].copy_from_slice(&buffer[unread.start..][..n]); // [read]
                if n < unread.len() {
                    state.unread = Some(Ok(unread.start + n..unread.end));
                }
                return Ok(n);
            }
            // As `std` has it, where the socket says so.
            Some(Err(ffi::WSAESHUTDOWN)) => return Ok(0),
            Some(Err(error)) => return Err(io::Error::from_raw_os_error(error)),
            None => state.direct_reads += 1,
        }
        drop(state);
        let result = recv(&self.inner, buf);
        // Declared before the lock, and so dropped after it: if this is the last reference, `Selector::drop` locks
        // `state`.
        let selector = operation.selector();
        let mut state = lock(&operation.state);
        state.direct_reads -= 1;
        if let (Phase::Deferred, 0, Some(selector)) = (state.phase, state.direct_reads, &selector) {
            // If this fails, there is nobody to tell. The next `register` tries again.
            let _ = operation.arm(selector, &mut state);
        }
        result
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        // `inner` is closed after this, so its number is still ours.
        let is_packet_to_come = self.operation.cancel(true); // [take-back]
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
