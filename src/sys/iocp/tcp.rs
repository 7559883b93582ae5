//! The stream, and the operation with which it lends the kernel a buffer.
//!
//! ```text
//!            register: WSARecv                                   the packet is taken: an event
//!   Idle ------------------------------> Receiving -----------------------------------------------> Idle
//!    |                                       |                                                       ^
//!    |                                       |  read: it is complete already                         |
//!    |  register: something is left unread   v                       the packet is taken: an event,  |
//!    +----------------------------------> Announced -------------------------------------------------+
//!             (we post a packet)                                     if there is still something to read
//! ```
//!
//! (There is a fourth state, `Deferred`: still idle, but to be received as soon as nobody reads the socket itself. And if a
//! read has had everything before its packet is taken, that packet is no event: a new receive begins.)
//!
//! While it is `Receiving`, the `OVERLAPPED` and the buffer are the kernel's, which does not ask whether the stream that
//! lent them is still there. So they are not in the stream, but in an [`Operation`] of which the stream has one share and
//! the selector, for the kernel, another.

use super::super::error::{belongs_to_another, failed_with};
use super::super::recv;
use super::{Selector, associate, ffi, last_error, locked, post};
use crate::Token;
use std::cell::UnsafeCell;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::{mem, net, ptr};

/// How much a stream lends. What exceeds it is read from the socket as ever, so this is no limit; and to lend more would
/// cost memory that 10,000 waiting streams have 10,000 times.
const LENT: usize = 4096;

/// How long a blocking read waits for a receive before it looks without having been told. The socket's handle is signaled
/// when the packet is taken; but perhaps nobody does that but us. And the next operation, perhaps a write in another thread,
/// takes the signal back.
const LOOK_AGAIN_MS: u32 = 10;

pub struct Operation {
    overlapped: UnsafeCell<ffi::OVERLAPPED>,
    buffer: UnsafeCell<[u8; LENT]>,
    /// Open until the state says `is_dropped`.
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
    received: Option<Result<Range<usize>, i32>>,
    /// How many reads are at the socket itself, since nothing was lent when they came.
    readers: usize,
    /// We have cancelled it, and it is not to begin again.
    is_recalled: bool,
    /// The stream is gone, its socket about to be closed.
    is_dropped: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// Nothing is lent, and no packet will come.
    #[default]
    Idle,
    /// Registered while a read is at the socket. A receive beside it would share the bytes with it, in an order that
    /// nobody knows; so whoever ends the last read starts it.
    Deferred,
    /// The kernel has the `OVERLAPPED` and the buffer. A packet will come.
    Receiving,
    /// Nothing is lent, but a packet will come.
    Announced,
}

// SAFETY: `overlapped` and `buffer` are the kernel's while `Receiving`, when we only let the system look at the one; and
// otherwise of whoever has locked `state`.
unsafe impl Send for Operation {}
// SAFETY: likewise.
unsafe impl Sync for Operation {}

impl Operation {
    fn new(socket: RawSocket) -> Operation {
        Operation {
            // SAFETY: all of it may be zero.
            overlapped: unsafe { mem::zeroed() },
            buffer: UnsafeCell::new([0; LENT]),
            socket,
            selector: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// By which a packet tells whose it is.
    pub fn address(&self) -> usize {
        self.overlapped.get() as usize
    }

    pub fn register(&self, selector: &Selector, token: Token) -> io::Result<()> {
        let mut state = locked(&self.state);
        state.token = token; // [token]
        match state.phase {
            Phase::Idle | Phase::Deferred => self.arm(selector, &mut state), // [arm]
            // The packet that will come finds the new token.
            Phase::Receiving | Phase::Announced => Ok(()),
        }
    }

    fn arm(&self, selector: &Selector, state: &mut State) -> io::Result<()> {
        if !self.receive(state)? {
            // A packet that looks as if a receive had ended: one that has, and was not read to its end, is an event too.
            post(&selector.port, self.overlapped.get())?;
            state.phase = Phase::Announced;
        }
        Ok(())
    }

    /// Starts a receive, now or as soon as nobody reads. `false`: there is something to read without one.
    fn receive(&self, state: &mut State) -> io::Result<bool> {
        if state.received.is_some() {
            return Ok(false);
        }
        if state.readers > 0 {
            state.phase = Phase::Deferred;
            return Ok(true);
        }
        match self.wsa_recv() {
            Ok(()) => state.phase = Phase::Receiving, // [lend]
            // The system has no room for it. That says nothing about the stream.
            Err(error @ (ffi::WSAENOBUFS | ffi::WSAEWOULDBLOCK)) => {
                return Err(failed_with("WSARecv", io::Error::from_raw_os_error(error)));
            }
            Err(error) => state.received = Some(Err(error)),
        }
        Ok(state.received.is_none())
    }

    /// Lends the kernel what it needs. From `Ok` on that is the kernel's, even if there were bytes to receive at once:
    /// either way a packet comes. After an error none comes. (The thread may end before the receive does: that cancels
    /// only what belongs to no port. <https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-exitthread>)
    fn wsa_recv(&self) -> Result<(), i32> {
        let (len, buf) = (LENT as u32, self.buffer.get().cast());
        let (buffers, none, mut flags) = (ffi::WSABUF { len, buf }, ptr::null_mut(), 0);
        // SAFETY: the socket is open. `buffers` and `flags` are used until the call returns. `overlapped` and the buffer
        // are ours to lend, for `state` is locked and was not `Receiving`; and they stay where they are until the packet
        // was taken, for until then the selector has a share in this operation.
        let result = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSARecv(socket, &buffers, 1, none, &mut flags, overlapped, None)
        };
        match (result, last_error()) {
            (0, _) | (_, ffi::WSA_IO_PENDING) => Ok(()),
            (_, error) => Err(error),
        }
    }

    /// Sees whether the receive is complete, and what it brought. That ends the loan; but `select` has yet to see the
    /// packet, and until then this operation must stay where it is.
    fn look(&self, state: &mut State) {
        if state.phase != Phase::Receiving {
            return;
        }
        let (mut n, mut flags) = (0, 0);
        // SAFETY: the socket is open, `overlapped` is where it was, and the numbers are used until the call returns.
        let is_complete = unsafe {
            let (socket, overlapped) = (self.socket as ffi::SOCKET, self.overlapped.get());
            ffi::WSAGetOverlappedResult(socket, overlapped, &mut n, 0, &mut flags)
        };
        state.received = match (is_complete, last_error()) {
            (0, ffi::WSA_IO_INCOMPLETE) => return,
            // We have cancelled it, which is no news for a reader. The error's code would not tell that it was us.
            (0, _) if state.is_recalled => None,
            (0, error) => Some(Err(error)),
            _ => Some(Ok(0..n as usize)),
        };
        state.phase = Phase::Announced; // [return]
    }

    /// The packet was taken from the port. Returns the token if that is an event.
    pub fn packet_taken(&self, selector: &Selector) -> Option<Token> {
        let mut state = locked(&self.state);
        if state.is_dropped {
            locked(&selector.operations).remove(&self.address());
        } else {
            self.look(&mut state);
        }
        state.phase = Phase::Idle;
        // If a read was faster than the packet, the registration goes on waiting, for what comes next. If it cannot, whoever
        // registered is told by an event, which is only a hint then.
        match state.is_recalled || self.receive(&mut state).unwrap_or(false) {
            true => None,
            false => Some(state.token),
        }
    }

    /// The stream or the port is about to be closed. Returns whether a packet is still to come.
    pub fn recall(&self, is_dropped: bool) -> bool {
        let mut state = locked(&self.state);
        if state.phase == Phase::Receiving && !state.is_dropped {
            // It fails if the receive is complete; then its packet is on the way to `packet_taken`.
            // SAFETY: the socket is open, and the pointer only says which operation is meant.
            unsafe { ffi::CancelIoEx(self.socket as ffi::HANDLE, self.overlapped.get()) };
        }
        state.is_recalled = true;
        state.is_dropped |= is_dropped;
        matches!(state.phase, Phase::Receiving | Phase::Announced)
    }

    fn read(&self, stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = locked(&self.state);
        while state.phase == Phase::Receiving {
            drop(state);
            let taken = self.selector().map_or(Ok(()), |it| it.take_for_select());
            state = locked(&self.state);
            self.look(&mut state);
            if state.phase == Phase::Receiving {
                taken?;
                if stream.is_nonblocking.load(SeqCst) {
                    return Err(ErrorKind::WouldBlock.into());
                }
                drop(state);
                // SAFETY: the socket is open, and no pointer is passed.
                unsafe { ffi::WaitForSingleObject(self.socket as ffi::HANDLE, LOOK_AGAIN_MS) };
                state = locked(&self.state);
            }
        }
        match state.received.take() {
            Some(Ok(unread)) => {
                let n = unread.len().min(buf.len());
                // SAFETY: nothing is lent, and so the buffer belongs to whoever has locked `state`.
                let buffer = unsafe { &*self.buffer.get() };
                buf[..n].copy_from_slice(&buffer[unread.start..][..n]); // [read]
                if n < unread.len() {
                    state.received = Some(Ok(unread.start + n..unread.end));
                }
                return Ok(n);
            }
            // As `std` has it, where the socket says so.
            Some(Err(ffi::WSAESHUTDOWN)) => return Ok(0),
            Some(Err(error)) => return Err(io::Error::from_raw_os_error(error)),
            None => state.readers += 1,
        }
        drop(state);
        let result = recv(&stream.inner, buf);
        // It outlives the lock: if ours were the last share, dropping it would lock `state` too.
        let selector = self.selector();
        let mut state = locked(&self.state);
        state.readers -= 1;
        if let (Phase::Deferred, Some(selector)) = (state.phase, &selector) {
            // If this fails, there is nobody to tell. The next `register` tries again.
            let _ = self.arm(selector, &mut state);
        }
        result
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

    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.inner.set_nonblocking(nonblocking)?;
        self.is_nonblocking.store(nonblocking, SeqCst);
        Ok(())
    }

    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match buf.is_empty() {
            // On Windows, to receive nothing may mean to wait.
            true => Ok(0),
            false => self.operation.read(self, buf),
        }
    }

    /// The stream's operation, which belongs to this selector now, if it did to none before.
    pub(super) fn join(&self, selector: &Selector) -> io::Result<&Operation> {
        if self.operation.selector.get().is_none() {
            self.associate(selector)?;
        }
        // [own]
        match self.operation.selector.get() {
            Some(mine) if mine.ptr_eq(&selector.me) => Ok(&self.operation),
            _ => Err(belongs_to_another()),
        }
    }

    #[cold]
    fn associate(&self, selector: &Selector) -> io::Result<()> {
        // Of the threads that register with this selector, one comes first. Those that do with another, the system refuses.
        let mut operations = locked(&selector.operations);
        if self.operation.selector.get().is_none() {
            associate(self.inner.as_raw_socket(), &selector.port)?; // [first]
        }
        self.operation.selector.get_or_init(|| {
            operations.insert(self.operation.address(), self.operation.clone());
            selector.me.clone()
        });
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        // `inner` is closed after this, so its number is still ours.
        let is_packet_to_come = self.operation.recall(true); // [take-back]
        if let (false, Some(selector)) = (is_packet_to_come, self.operation.selector()) {
            locked(&selector.operations).remove(&self.operation.address());
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
