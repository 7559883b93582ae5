//! Windows: IOCP, a *completion* queue.
//!
//! epoll and kqueue report when a read will not block, and leave the read to us. Here it is the other way round: we
//! start the read first, with a buffer that we lend to the kernel, and go on. When data arrives the kernel puts it
//! there, and then a packet into a port, which says that the operation is complete. `GetQueuedCompletionStatusEx` takes
//! packets from the port, sleeping while there are none.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! So "the stream can be read" becomes "a receive has ended": its bytes, the end of the stream or an error wait in the
//! stream's [`Operation`] until [`read`](TcpStream) hands them out. That costs a buffer for every stream, 40 MB for
//! 10,000 of them; and while a receive waits, the pages of its buffer stay in physical memory. There are two ways
//! around it. A receive of *zero* bytes completes when there is something to read, and lends no buffer; mio did that
//! once. And one can ask the driver below the sockets, AFD, which knows readiness, but is not documented; mio and
//! wepoll do that now. Both hide the lesson: what is lent to the kernel is the kernel's, until it says that it is done.
//!
//! `tcp.rs` has the operation and its life; this file has the port. Locks are taken in one order, so that no
//! two threads wait for each other: `taken`, then an operation's `state`, then `operations`.

#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;
mod tcp;

pub use tcp::TcpStream;

use super::error::{belongs_to_another, failed};
use crate::Token;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle, RawSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{iter, mem, ptr};
use tcp::Operation;

type Packets = Vec<crate::Event>;

/// How long a loop that is dropped waits for the next packet of a receive that it has cancelled. It comes soon, unless
/// the system has refused to cancel.
const DRAIN_MS: u32 = 10_000;

pub struct Selector {
    port: OwnedHandle,
    /// The operation of each stream that was registered, by its address, which is what a packet brings. We keep this
    /// reference for the kernel, until the stream is gone *and* no packet is to come any more.
    operations: Mutex<HashMap<usize, Arc<Operation>>>,
    /// Packets that a read has taken from the port, for `select` to handle.
    taken: Mutex<VecDeque<crate::Event>>,
    /// Set by `wake`, for good: its packet wakes one sleeper, and is gone.
    is_woken: AtomicBool,
    /// Each stream that is registered gets a copy. It is weak, so that a stream does not keep our handle of the port
    /// open.
    me: Weak<Selector>,
}

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let port = create_io_completion_port(ffi::INVALID_HANDLE_VALUE, ptr::null_mut())?; // [queue]
        // SAFETY: it was made just now, and has no other owner.
        let port = unsafe { OwnedHandle::from_raw_handle(port) };
        Ok(Arc::new_cyclic(|me| Selector {
            port,
            operations: Mutex::default(),
            taken: Mutex::default(),
            is_woken: AtomicBool::new(false),
            me: me.clone(),
        }))
    }

    pub fn register(&self, stream: &TcpStream, token: Token) -> io::Result<()> {
        stream.attach(self)?.register(self, token)
    }

    pub fn select(&self, events: &mut Packets, timeout_ms: Option<i32>) -> io::Result<()> {
        let capacity = events.capacity();
        if capacity == 0 {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut timeout_ms = match timeout_ms {
            _ if self.is_woken.load(SeqCst) || !lock(&self.taken).is_empty() => 0,
            Some(ms) => ms as u32,
            None => ffi::INFINITE,
        };
        loop {
            get_packets(&self.port, events, timeout_ms)?; // [wait]
            let is_port_empty = events.is_empty();
            let mut taken = lock(&self.taken);
            taken.extend(events.drain(..));
            let packets = iter::from_fn(|| taken.pop_front());
            let came = packets.filter_map(|packet| self.to_event(packet));
            events.extend(came.take(capacity));
            if !events.is_empty() || is_port_empty {
                return Ok(());
            }
            timeout_ms = 0; // what came means nothing; behind it there may be something that does
        }
    }

    /// What the packet means to the user; not every packet means something.
    fn to_event(&self, mut packet: crate::Event) -> Option<crate::Event> {
        let operation = lock(&self.operations).get(&packet.0.address()).cloned();
        packet.0.0.lpCompletionKey = operation?.on_packet(self)?;
        Some(packet)
    }

    /// Takes the packets that are there, and leaves them to `select`. Windows writes the result of an operation into
    /// its `OVERLAPPED` only when the packet is taken; and a read needs that result, even if nobody ever calls
    /// `select`.
    fn take_packets(&self) -> io::Result<()> {
        let (mut packets, mut is_full) = (Packets::with_capacity(64), true);
        let mut taken = lock(&self.taken);
        while is_full {
            get_packets(&self.port, &mut packets, 0)?;
            is_full = packets.len() == packets.capacity();
            taken.extend(packets.drain(..).filter(|packet| packet.0.address() != 0));
            // A thread that sleeps in `select` may have waited for one of these, so we post another packet for it. (If
            // that fails, it sleeps until the next one comes.)
            if self.is_woken.load(SeqCst) || !taken.is_empty() {
                post_packet(&self.port, ptr::null_mut())?;
            }
        }
        Ok(())
    }

    /// By a packet of no operation.
    pub fn wake(&self) -> io::Result<()> {
        self.is_woken.store(true, SeqCst);
        post_packet(&self.port, ptr::null_mut()) // [wake]
            .inspect_err(|_| self.is_woken.store(false, SeqCst))
    }
}

impl Drop for Selector {
    /// What is lent must come back before we give up our references. So every receive is cancelled, and then we wait
    /// for the packets: an operation that was cancelled is not over yet, it will be over soon.
    fn drop(&mut self) {
        let operations = mem::take(&mut *lock(&self.operations));
        let mut to_come = operations.values().filter(|it| it.cancel(false)).count();
        let mut packets = Packets::from(mem::take(&mut *lock(&self.taken)));
        packets.reserve(64);
        // [drain]
        loop {
            for packet in packets.drain(..) {
                if let Some(operation) = operations.get(&packet.0.address()) {
                    operation.on_packet(self);
                    to_come -= 1;
                }
            }
            if to_come == 0 {
                return;
            }
            if get_packets(&self.port, &mut packets, DRAIN_MS).is_err() || packets.is_empty() {
                // Better a leak than to wait for ever, or to free what the kernel may write to.
                return mem::forget(operations);
            }
        }
    }
}

/// A packet. All our handles have the key 0 in theirs, and `select` puts the user's token in its place.
///
/// The token cannot *travel* there: the key is fixed when a socket is associated with the port, and a token is new with
/// each `register`. It travels in the operation.
#[repr(transparent)]
pub struct RawEvent(ffi::OVERLAPPED_ENTRY);

impl RawEvent {
    pub fn token(&self) -> Token {
        self.0.lpCompletionKey
    }

    fn address(&self) -> usize {
        self.0.lpOverlapped as usize
    }
}

// SAFETY: the user cannot get at the pointer in it, and to us it is a number.
unsafe impl Send for RawEvent {}
// SAFETY: likewise.
unsafe impl Sync for RawEvent {}

/// From now on, each overlapped operation on the socket is reported to the port when it completes. Win32 knows no way
/// back.
fn associate_with_port(socket: RawSocket, port: &OwnedHandle) -> io::Result<()> {
    match create_io_completion_port(socket as ffi::HANDLE, port.as_raw_handle()) {
        // It has a port, perhaps by a duplicate of the socket. (Or it was made without `WSA_FLAG_OVERLAPPED`, which
        // `std` never does, and cannot have one.)
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(belongs_to_another()),
        result => result.map(|_| ()),
    }
}

fn create_io_completion_port(handle: ffi::HANDLE, port: ffi::HANDLE) -> io::Result<ffi::HANDLE> {
    // The last argument counts when the port is made: it is how many threads that have taken packets may run at once.
    // The default is the number of processors, and then such a thread, busy now, could keep another one asleep.
    // SAFETY: numbers are passed, and no pointer.
    match unsafe { ffi::CreateIoCompletionPort(handle, port, 0, i32::MAX as u32) } {
        port if port.is_null() => Err(failed("CreateIoCompletionPort")),
        port => Ok(port),
    }
}

fn get_packets(port: &OwnedHandle, packets: &mut Packets, timeout_ms: u32) -> io::Result<()> {
    packets.clear();
    // [capacity]
    let (room, capacity) = (packets.as_mut_ptr().cast(), packets.capacity() as u32);
    let (port, mut n) = (port.as_raw_handle(), 0);
    // SAFETY: `room` has space for `capacity` packets, a `crate::Event` is laid out as one, and we alone have access.
    // The kernel writes that many at most, and `n` says how many it has written.
    unsafe {
        match ffi::GetQueuedCompletionStatusEx(port, room, capacity, &mut n, timeout_ms, 0) {
            0 if last_error() == ffi::WAIT_TIMEOUT => (),
            0 => return Err(failed("GetQueuedCompletionStatusEx")),
            _ => packets.set_len(n as usize),
        }
    }
    Ok(())
}

fn post_packet(port: &OwnedHandle, overlapped: *mut ffi::OVERLAPPED) -> io::Result<()> {
    // SAFETY: the pointer is not looked at, only passed on.
    match unsafe { ffi::PostQueuedCompletionStatus(port.as_raw_handle(), 0, 0, overlapped) } {
        0 => Err(failed("PostQueuedCompletionStatus")),
        _ => Ok(()),
    }
}

/// No code panics that holds one of these locks, so a poisoned one would be as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the last call of this thread failed with, if it failed. (Winsock's `WSAGetLastError` is the same.)
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
