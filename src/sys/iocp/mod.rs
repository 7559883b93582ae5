//! Windows: IOCP, a *completion* queue.
//!
//! epoll and kqueue report when a read will not block, and leave the read to us. Here it is the other way round: we
//! start the read first, with a buffer that we lend to the kernel, and go on. When data arrives the kernel puts it
//! there, and then queues a packet to a port, which says that the operation is complete. `GetQueuedCompletionStatusEx`
//! dequeues packets from the port, and sleeps while there are none.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! So "the stream can be read" becomes "a receive has ended": its bytes, the end of the stream or an error wait in the
//! stream's [`Operation`] until [`read`](Source) hands them out. That costs a buffer for every stream, 40 MB for
//! 10,000 of them; and while a receive waits, the pages of its buffer stay in physical memory.
//!
//! "The stream can be written to" is no operation that could end: a write which is lent to the kernel would have to outlive
//! the stream, or lose bytes. So we ask AFD, the driver below the sockets, which knows readiness; its answer is the end of
//! an operation, too. It could be asked about reading as well, as mio and wepoll do. That needs no buffer, but it hides the
//! lesson: what is lent to the kernel is the kernel's, until it says that it is done.
//!
//! This file has the port, `operation.rs` what is lent and when, `tcp.rs` the sources, `afd.rs` the question to AFD, and `socket.rs`
//! the sockets that we make ourselves.
//! Locks are taken in one order, so that no two threads wait for each other: the selector's `inbox`, then an operation's
//! `state`, then the selector's `operations`.

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

/// How many packets one call dequeues at most. The kernel has to look at all the room for them, however few there are.
const MAX_PACKETS: usize = 256;

/// How long a loop that is dropped waits for the next packet of an operation that it has cancelled. The packet comes soon,
/// unless the system has refused to cancel.
const DRAIN_MS: u32 = 10_000;

pub struct Selector {
    port: OwnedHandle,
    /// The operations of which a packet is to come, by the address that it will bring. This is the kernel's reference: it
    /// is kept until the packet was dequeued.
    operations: Mutex<HashMap<usize, Arc<Operation>>>,
    inbox: Mutex<Inbox>,
    /// Notified when a thread has dequeued packets, or has waited for them in vain.
    dequeued: Condvar,
    /// Each source that is registered gets a copy. It is weak, so that a source does not keep our handle of the port open.
    me: Weak<Selector>,
}

/// What was dequeued from the port. Besides `select`, a read that waits for its receive dequeues packets, because perhaps
/// no thread is in `select`. One thread at a time does so, and the others wait for it; so no thread sleeps in the port
/// while another takes away the packet that was to wake it.
struct Inbox {
    /// Operations that have ended, for `select` to make events of.
    ended: VecDeque<Arc<Operation>>,
    /// Room for packets. `None`: a thread has it, and is dequeuing.
    packets: Option<Vec<OVERLAPPED_ENTRY>>,
    /// Set by `wake`, for good: its packet wakes one thread, and is gone.
    is_woken: bool,
}

// SAFETY: to us, the pointer in it is a number.
unsafe impl Send for OVERLAPPED_ENTRY {}

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let port = create_io_completion_port(ffi::INVALID_HANDLE_VALUE, ptr::null_mut())?; // [queue]
        // SAFETY: it was made just now, and has no other owner.
        let port = unsafe { OwnedHandle::from_raw_handle(port) };
        let inbox = Inbox {
            ended: VecDeque::new(),
            packets: Some(Vec::with_capacity(MAX_PACKETS)),
            is_woken: false,
        };
        Ok(Arc::new_cyclic(|me| Selector {
            port,
            operations: Mutex::default(),
            inbox: Mutex::new(inbox),
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
        source.operation(self, interests)?.register(self, token)
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
            timeout_ms = 0; // what came means nothing to the user; behind it there may be something that does
        }
    }

    /// Moves packets from the port to the inbox, and waits for them if there are none. If another thread does so already,
    /// waits for that one. Returns how many packets this thread has dequeued.
    fn dequeue<'a>(
        &'a self,
        mut inbox: MutexGuard<'a, Inbox>,
        timeout_ms: u32,
    ) -> io::Result<(MutexGuard<'a, Inbox>, usize)> {
        let Some(mut packets) = inbox.packets.take() else {
            let timeout = Duration::from_millis(timeout_ms.into());
            let result = self.dequeued.wait_timeout(inbox, timeout);
            return Ok((result.unwrap_or_else(PoisonError::into_inner).0, 0));
        };
        drop(inbox);
        let result = get_packets(&self.port, &mut packets, timeout_ms);
        let (mut inbox, n) = (lock(&self.inbox), packets.len());
        let ended = packets
            .drain(..)
            .filter_map(|packet| self.on_packet(packet));
        inbox.ended.extend(ended);
        inbox.packets = Some(packets);
        self.dequeued.notify_all();
        result.map(|()| (inbox, n))
    }

    /// Dequeues packets until the condition holds. With a timeout of 0, only those that are in the port now.
    fn dequeue_until(&self, condition: impl Fn() -> bool, timeout_ms: u32) -> io::Result<()> {
        let (mut inbox, mut n) = (lock(&self.inbox), MAX_PACKETS);
        while !condition() && (timeout_ms > 0 || n == MAX_PACKETS) {
            (inbox, n) = self.dequeue(inbox, timeout_ms)?;
        }
        Ok(())
    }

    /// The operation that has ended, if the packet is an operation's.
    fn on_packet(&self, packet: OVERLAPPED_ENTRY) -> Option<Arc<Operation>> {
        let address = packet.lpOverlapped as usize;
        let operation = lock(&self.operations).get(&address).cloned()?;
        let has_ended = operation.take_back(packet.Internal);
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
    /// What is lent must come back before we give up our references. So every operation is cancelled, and then we wait for
    /// the packets: an operation that was cancelled has not ended yet, it will end soon.
    fn drop(&mut self) {
        let lent: Vec<_> = lock(&self.operations).values().cloned().collect();
        lent.iter().for_each(|operation| operation.cancel(false));
        let mut packets = Vec::with_capacity(MAX_PACKETS);
        // [drain]
        while !lock(&self.operations).is_empty() {
            let result = get_packets(&self.port, &mut packets, DRAIN_MS);
            if result.is_err() || packets.is_empty() {
                // A leak is better than to wait without end, or to free what the kernel may still write to.
                let operations = mem::take(&mut *lock(&self.operations));
                operations.values().for_each(|it| it.give_up());
                mem::forget(operations);
                break;
            }
            for packet in packets.drain(..) {
                self.on_packet(packet);
            }
        }
        traced_close!(ffi::Port(self.port.as_raw_handle().addr()));
    }
}

/// An event is no struct of the system's here, because a packet has no place for a token. (The completion key is fixed when
/// a socket is associated with the port, and a token is new with each `register`. So the token travels in the operation.)
pub struct RawEvent {
    token: Token,
    interests: Interests,
}

impl RawEvent {
    pub fn token(&self) -> Token {
        self.token
    }

    pub fn is_writable(&self) -> bool {
        self.interests.is_writable()
    }
}

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
    // The last argument counts when the port is made: it is how many threads that have dequeued packets may run at once.
    // The default is the number of processors, and then such a thread, busy now, could keep another one asleep.
    // SAFETY: numbers are passed, and no pointer.
    match unsafe { ffi::CreateIoCompletionPort(handle, port, 0, i32::MAX as u32) } {
        port if port.is_null() => Err(failed("CreateIoCompletionPort")),
        port => Ok(port),
    }
}

fn get_packets(
    port: &OwnedHandle,
    packets: &mut Vec<OVERLAPPED_ENTRY>,
    timeout_ms: u32,
) -> io::Result<()> {
    packets.clear();
    let (room, capacity) = (packets.as_mut_ptr(), packets.capacity() as u32);
    let (port, mut n) = (port.as_raw_handle(), 0);
    // SAFETY: there is room for `capacity` packets, and we alone have access. The kernel writes that many at most, and `n`
    // says how many it has written.
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
