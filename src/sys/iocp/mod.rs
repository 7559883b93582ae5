//! Windows: IOCP, a *completion* queue.
//!
//! epoll and kqueue report when a read will not block, and leave the read to us. On Windows we start the read first,
//! with a buffer that we lend to the kernel. When data arrives, the kernel writes it into the buffer, and then queues a
//! packet to a port, which reports that the operation is complete. `GetQueuedCompletionStatusEx` dequeues packets from
//! the port, and sleeps while there are none.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! So "the stream can be read" becomes "a receive has ended": the stream's [`Operation`] keeps the bytes, the end of
//! the stream or an error until [`read`](Source) returns them. This costs a buffer for every stream, 40 MB for 10,000
//! streams, and while a receive waits, the pages of its buffer stay in physical memory.
//!
//! Writing does not work in this way, because a write that is lent to the kernel would have to outlive the stream, or
//! lose bytes. So we ask AFD, the driver below the sockets, whether there is room. This question is an operation, too,
//! and its end is the answer. mio and wepoll also ask AFD about reading. That needs no buffer, but a buffer shows the
//! rule best: what is lent to the kernel belongs to the kernel until the packet of the operation is dequeued.
//!
//! This file has the port, `operation.rs` what is lent and when, `tcp.rs` the sources, `afd.rs` the question to AFD,
//! and `socket.rs` the sockets that we create ourselves. The guide's chapter 4b explains the backend step by step. All
//! threads take locks in one order, so that no two threads wait for each other: the selector's `inbox`, then an
//! operation's `state`, then the selector's `operations`.

mod afd;
#[cfg_attr(feature = "trace", path = "traced.rs")]
pub mod ffi;
mod operation;
pub mod socket;
mod tcp;

pub use tcp::Source;

use super::error::{belongs_to_another, failed};
use crate::{Event, Interests, Token};
use ffi::OVERLAPPED_ENTRY;
use operation::Operation;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::os::windows::io::{AsRawHandle, AsRawSocket, FromRawHandle, OwnedHandle, RawSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{iter, mem, ptr};

/// The largest number of packets that one call dequeues. The kernel checks all the memory for them, even if it writes
/// only a few.
const MAX_PACKETS: usize = 256;

/// How long a dropped loop waits for the next packet of the operations that it has cancelled. Packets come soon, unless
/// the system has refused to cancel.
const DRAIN_MS: u32 = 10_000;

pub struct Selector {
    port: OwnedHandle,
    /// The operations whose packets will come, by the address in the packet. These are the kernel's references: the
    /// selector keeps them until it has dequeued the packets.
    operations: Mutex<HashMap<usize, Arc<Operation>>>,
    inbox: Mutex<Inbox>,
    /// Notified when a thread has dequeued packets, or its wait for packets has timed out.
    dequeued: Condvar,
    /// Each registered source gets a copy. The reference is weak, so that a source does not keep the port open.
    me: Weak<Selector>,
}

/// What was dequeued from the port. Besides `select`, a read that waits for its receive dequeues packets, because
/// perhaps no thread is in `select`. One thread at a time dequeues, and the others wait for it. Otherwise a thread
/// could sleep in the port after another thread had dequeued the packet that it waits for.
#[derive(Default)]
struct Inbox {
    /// Operations that have ended. `select` takes them out, and `to_event` decides which of them become events.
    ended: VecDeque<Arc<Operation>>,
    /// Whether a thread is dequeuing.
    is_dequeuing: bool,
    /// Set by `wake`. It stays set, because a wait that begins after the packet was dequeued does not find the packet.
    /// (If the packet cannot be posted, it is reset.)
    is_woken: bool,
}

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let port = create_io_completion_port(ffi::INVALID_HANDLE_VALUE, ptr::null_mut())?; // [queue]
        // SAFETY: the handle is new, and has no other owner.
        let port = unsafe { OwnedHandle::from_raw_handle(port) };
        Ok(Arc::new_cyclic(|me| Selector {
            port,
            operations: Mutex::default(),
            inbox: Mutex::default(),
            dequeued: Condvar::new(),
            me: me.clone(),
        }))
    }

    pub fn register<S: AsRawSocket>(
        &self,
        source: &Source<S>,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        source.attach(self)?;
        match interests.is_writable() {
            true => source.to_write().register(self, token),
            false => source.to_read.register(self, token),
        }
    }

    pub fn select(&self, events: &mut Vec<Event>, timeout_ms: Option<i32>) -> io::Result<()> {
        events.clear();
        let capacity = events.capacity(); // [capacity]
        if capacity == 0 {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut inbox = lock(&self.inbox);
        let mut timeout_ms = match timeout_ms {
            _ if inbox.is_woken || !inbox.ended.is_empty() => 0,
            Some(ms) => ms as u32,
            None => ffi::INFINITE,
        };
        loop {
            let n;
            (inbox, n) = self.dequeue(inbox, timeout_ms)?; // [wait]
            let ended = iter::from_fn(|| inbox.ended.pop_front());
            let came = ended.filter_map(|operation| operation.to_event(self));
            events.extend(came.take(capacity).map(Event));
            if !events.is_empty() || n == 0 {
                return Ok(());
            }
            timeout_ms = 0; // these packets were no events; there may be more packets behind them
        }
    }

    /// Moves packets from the port to the inbox, and waits for them if there are none. If another thread is already
    /// doing this, waits for that thread. Returns how many packets this thread has dequeued.
    fn dequeue<'a>(
        &'a self,
        mut inbox: MutexGuard<'a, Inbox>,
        timeout_ms: u32,
    ) -> io::Result<(MutexGuard<'a, Inbox>, usize)> {
        if mem::replace(&mut inbox.is_dequeuing, true) {
            let timeout = Duration::from_millis(timeout_ms.into());
            let result = self.dequeued.wait_timeout(inbox, timeout);
            return Ok((result.unwrap_or_else(PoisonError::into_inner).0, 0));
        }
        drop(inbox);
        // SAFETY: all of it may be zero.
        let mut packets: [OVERLAPPED_ENTRY; MAX_PACKETS] = unsafe { mem::zeroed() };
        let result = self.get_packets(&mut packets, timeout_ms);
        let (mut inbox, n) = (lock(&self.inbox), *result.as_ref().unwrap_or(&0));
        let ended = packets[..n].iter().filter_map(|it| self.on_packet(it));
        inbox.ended.extend(ended);
        inbox.is_dequeuing = false;
        self.dequeued.notify_all();
        result.map(|n| (inbox, n))
    }

    fn get_packets(&self, room: &mut [OVERLAPPED_ENTRY], timeout_ms: u32) -> io::Result<usize> {
        let (place, capacity) = (room.as_mut_ptr(), room.len() as u32);
        let (port, mut n) = (self.port.as_raw_handle(), 0);
        // SAFETY: there is room for `capacity` packets at `place`, and we alone have access. The kernel writes at most
        // that many, and sets `n` to the number that it has written.
        let result = unsafe {
            ffi::GetQueuedCompletionStatusEx(port, place, capacity, &mut n, timeout_ms, 0)
        };
        match (result, last_error()) {
            (0, ffi::WAIT_TIMEOUT) => Ok(0),
            (0, _) => Err(failed("GetQueuedCompletionStatusEx")),
            _ => Ok(n as usize),
        }
    }

    /// Returns the operation that has ended, if the packet belongs to one.
    fn on_packet(&self, packet: &OVERLAPPED_ENTRY) -> Option<Arc<Operation>> {
        let address = packet.lpOverlapped as usize;
        let operation = lock(&self.operations).get(&address).cloned()?;
        let has_ended = operation.take_back(packet.Internal as i32);
        has_ended.then(|| lock(&self.operations).remove(&address))?
    }

    /// Posts a packet that belongs to no operation. It wakes the thread that is dequeuing, which notifies the others.
    pub fn wake(&self) -> io::Result<()> {
        lock(&self.inbox).is_woken = true;
        post_packet(&self.port, ptr::null_mut()) // [wake]
            .inspect_err(|_| lock(&self.inbox).is_woken = false)
    }
}

impl Drop for Selector {
    /// Everything lent must come back before we drop our references. So we cancel every operation, and wait for the
    /// packets, because a cancelled operation has not ended yet.
    fn drop(&mut self) {
        let lent: Vec<_> = lock(&self.operations).values().cloned().collect();
        lent.iter().for_each(|operation| operation.cancel());
        // [drain]
        while !lock(&self.operations).is_empty() {
            if !matches!(self.dequeue(lock(&self.inbox), DRAIN_MS), Ok((_, 1..))) {
                // A leak is better than waiting for ever, or freeing memory that the kernel may still write to.
                let operations = mem::take(&mut *lock(&self.operations));
                operations.values().for_each(|it| it.give_up());
                mem::forget(operations);
            }
        }
        traced_close!(ffi::Port(self.port.as_raw_handle().addr()));
    }
}

/// Unlike on the other systems, this is our own struct, because a packet has no place for a token. (The completion key
/// is fixed when a socket is associated with the port, while each `register` has a new token. So the token travels in
/// the operation.)
pub struct RawEvent(Token, Interests);

impl RawEvent {
    pub fn token(&self) -> Token {
        self.0
    }

    pub fn is_writable(&self) -> bool {
        self.1.is_writable()
    }
}

/// From now on, the kernel reports each overlapped operation on the socket to the port when it completes. Win32 cannot
/// undo this.
fn associate_with_port(socket: RawSocket, port: &OwnedHandle) -> io::Result<()> {
    match create_io_completion_port(socket as ffi::HANDLE, port.as_raw_handle()) {
        // The socket has a port already, perhaps because of a duplicate. (Or it was created without
        // `WSA_FLAG_OVERLAPPED`, which `std` never does, and cannot have a port.)
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(belongs_to_another()),
        result => result.map(|_| ()),
    }
}

fn create_io_completion_port(handle: ffi::HANDLE, port: ffi::HANDLE) -> io::Result<ffi::HANDLE> {
    // The last argument only matters when the port is created: the number of threads that may run at once after they
    // have dequeued packets. The default is the number of processors. With this default, a busy thread could keep
    // another one asleep.
    // SAFETY: we pass numbers, and no pointer.
    match unsafe { ffi::CreateIoCompletionPort(handle, port, 0, i32::MAX as u32) } {
        port if port.is_null() => Err(failed("CreateIoCompletionPort")),
        port => Ok(port),
    }
}

fn post_packet(port: &OwnedHandle, overlapped: *mut ffi::OVERLAPPED) -> io::Result<()> {
    // SAFETY: the kernel passes the pointer on, and does not use it.
    match unsafe { ffi::PostQueuedCompletionStatus(port.as_raw_handle(), 0, 0, overlapped) } {
        0 => Err(failed("PostQueuedCompletionStatus")),
        _ => Ok(()),
    }
}

/// No code panics while it holds one of these locks, so a poisoned lock would still protect valid data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error of this thread's last call, if it failed. (Winsock's `WSAGetLastError` returns the same.)
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
