//! Windows: IOCP, a *completion* queue.
//!
//! epoll and kqueue report when a read will not block, and leave the read to us. Here it is the other way round: we
//! start the read first, with a buffer that we lend to the kernel, and go on. When data arrives the kernel puts it
//! there, and then queues a packet to a port, which says that the operation is complete. `GetQueuedCompletionStatusEx`
//! dequeues packets from the port, and sleeps while there are none.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! So "the stream can be read" becomes "a receive has ended": its bytes, the end of the stream or an error wait in the
//! stream's [`Operation`] until [`read`](TcpStream) hands them out. That costs a buffer for every stream, 40 MB for
//! 10,000 of them; and while a receive waits, the pages of its buffer stay in physical memory. There are two ways
//! around it. A receive of *zero* bytes completes when there is something to read, and lends no buffer; mio did that
//! once. And one can ask the driver below the sockets, AFD, which knows readiness, but is not documented; mio and
//! wepoll do that now. Both hide the lesson: what is lent to the kernel is the kernel's, until it says that it is done.
//!
//! `tcp.rs` has the operation and its life; this file has the port. Locks are taken in one order, so that no two threads
//! wait for each other: the selector's `inbox`, then an operation's `state`, then the selector's `operations`.

mod afd;
#[cfg_attr(feature = "trace", path = "traced.rs")]
mod ffi;
mod operation;
mod tcp;

pub use tcp::TcpStream;

use super::error::{belongs_to_another, failed};
use crate::{Interests, Token};
use ffi::OVERLAPPED_ENTRY;
use operation::Operation;
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle, RawSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use std::{iter, mem, ptr, slice};

/// Room for the packets of one call. The kernel has to look at all of it, however few packets there are.
type Room = [MaybeUninit<crate::Event>];
const MAX_PACKETS: usize = 1024;

/// How long a loop that is dropped waits for the next packet of a receive that it has cancelled. The packet comes soon,
/// unless the system has refused to cancel.
const DRAIN_MS: u32 = 10_000;

pub struct Selector {
    port: OwnedHandle,
    /// The operations that are lent, by the address that the packet will bring. This is the kernel's reference: it is
    /// kept until the packet was dequeued.
    operations: Mutex<HashMap<usize, Arc<Operation>>>,
    inbox: Mutex<Inbox>,
    /// Notified when a thread has dequeued packets, or has waited for them in vain.
    dequeued: Condvar,
    /// Each stream that is registered gets a copy. It is weak, so that a stream does not keep our handle of the port
    /// open.
    me: Weak<Selector>,
}

/// What was dequeued from the port. Besides `select`, a read that waits for its receive dequeues packets, because perhaps
/// no thread is in `select`. One thread at a time does so, and the others wait for it; so no thread sleeps in the port
/// while another takes away the packet that was to wake it.
#[derive(Default)]
struct Inbox {
    /// Operations that have ended, for `select` to make events of.
    ended: VecDeque<Arc<Operation>>,
    /// A thread is dequeuing packets.
    is_busy: bool,
    /// Set by `wake`, for good: its packet wakes one thread, and is gone.
    is_woken: bool,
}

impl Selector {
    pub fn new() -> io::Result<Arc<Selector>> {
        let port = create_io_completion_port(ffi::INVALID_HANDLE_VALUE, ptr::null_mut())?; // [queue]
        // SAFETY: it was made just now, and has no other owner.
        let port = unsafe { OwnedHandle::from_raw_handle(port) };
        Ok(Arc::new_cyclic(|me| Selector {
            port,
            operations: Mutex::default(),
            inbox: Mutex::default(),
            dequeued: Condvar::new(),
            me: me.clone(),
        }))
    }

    pub fn register(
        &self,
        stream: &TcpStream,
        token: Token,
        interests: Interests,
    ) -> io::Result<()> {
        stream.operation(self, interests)?.register(self, token)
    }

    pub fn select(
        &self,
        events: &mut Vec<crate::Event>,
        timeout_ms: Option<i32>,
    ) -> io::Result<()> {
        events.clear();
        let capacity = events.capacity();
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
            (inbox, n) = self.dequeue(inbox, events.spare_capacity_mut(), timeout_ms)?; // [wait]
            let ended = iter::from_fn(|| inbox.ended.pop_front());
            let came = ended.filter_map(|operation| operation.to_event(self));
            events.extend(came.take(capacity).map(crate::Event));
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
        room: &mut Room,
        timeout_ms: u32,
    ) -> io::Result<(MutexGuard<'a, Inbox>, usize)> {
        if inbox.is_busy {
            let timeout = Duration::from_millis(timeout_ms.into());
            let result = self.dequeued.wait_timeout(inbox, timeout);
            return Ok((result.unwrap_or_else(PoisonError::into_inner).0, 0));
        }
        inbox.is_busy = true;
        drop(inbox);
        let result = get_packets(&self.port, room, timeout_ms);
        inbox = lock(&self.inbox);
        inbox.is_busy = false;
        self.dequeued.notify_all();
        let packets = result?;
        let ended = packets.iter().filter_map(|packet| self.on_packet(packet));
        inbox.ended.extend(ended);
        Ok((inbox, packets.len()))
    }

    /// The operation that has ended, if the packet is an operation's.
    fn on_packet(&self, packet: &crate::Event) -> Option<Arc<Operation>> {
        let OVERLAPPED_ENTRY {
            lpOverlapped,
            Internal: status,
            ..
        } = packet.0.0;
        let address = lpOverlapped as usize;
        let operation = lock(&self.operations).get(&address).cloned()?;
        let is_ended = operation.take_back(status);
        is_ended.then(|| lock(&self.operations).remove(&address))?
    }

    /// Puts an operation into the inbox that need not start, because there is something to read already.
    fn announce(&self, operation: &Arc<Operation>) -> io::Result<()> {
        let mut inbox = lock(&self.inbox);
        if inbox.is_busy {
            post_packet(&self.port, ptr::null_mut())?; // wakes the thread that waits in the port
        }
        if operation.end_without_packet() {
            inbox.ended.push_back(operation.clone());
        }
        Ok(())
    }

    /// Dequeues packets until the condition holds. With a timeout of 0, only those that are in the port now.
    fn dequeue_until(&self, condition: impl Fn() -> bool, timeout_ms: u32) -> io::Result<()> {
        let mut room = [const { MaybeUninit::uninit() }; 64];
        let (mut inbox, mut n) = (lock(&self.inbox), room.len());
        while !condition() && (timeout_ms > 0 || n == room.len()) {
            (inbox, n) = self.dequeue(inbox, &mut room, timeout_ms)?;
        }
        Ok(())
    }

    /// Wakes the thread that waits in the port, by posting a packet that belongs to no operation. If that thread is not
    /// `select` but a read, it notifies `select`.
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
        let mut room = [const { MaybeUninit::uninit() }; 64];
        // [drain]
        while !lock(&self.operations).is_empty() {
            let packets = get_packets(&self.port, &mut room, DRAIN_MS).unwrap_or_default();
            if packets.is_empty() {
                // A leak is better than to wait without end, or to free what the kernel may still write to.
                let operations = mem::take(&mut *lock(&self.operations));
                operations
                    .values()
                    .for_each(|operation| operation.give_up());
                return mem::forget(operations);
            }
            packets
                .iter()
                .for_each(|packet| drop(self.on_packet(packet)));
        }
    }
}

/// Laid out as a packet, so that `select` has room for packets in the user's `Events`. An event has the user's token in
/// the place of the key, and in the place of the status whether it is one for writing.
///
/// The token cannot *travel* there: the key is fixed when a socket is associated with the port, and a token is new with
/// each `register`. It travels in the operation.
#[repr(transparent)]
pub struct RawEvent(OVERLAPPED_ENTRY);

impl RawEvent {
    fn new(token: Token, interests: Interests) -> RawEvent {
        RawEvent(OVERLAPPED_ENTRY {
            lpCompletionKey: token,
            lpOverlapped: ptr::null_mut(),
            Internal: interests.is_writable().into(),
            dwNumberOfBytesTransferred: 0,
        })
    }

    pub fn token(&self) -> Token {
        self.0.lpCompletionKey
    }

    pub fn is_writable(&self) -> bool {
        self.0.Internal != 0
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
    // The last argument counts when the port is made: it is how many threads that have dequeued packets may run at once.
    // The default is the number of processors, and then such a thread, busy now, could keep another one asleep.
    // SAFETY: numbers are passed, and no pointer.
    match unsafe { ffi::CreateIoCompletionPort(handle, port, 0, i32::MAX as u32) } {
        port if port.is_null() => Err(failed("CreateIoCompletionPort")),
        port => Ok(port),
    }
}

fn get_packets<'a>(
    port: &OwnedHandle,
    room: &'a mut Room,
    timeout_ms: u32,
) -> io::Result<&'a [crate::Event]> {
    // [capacity]
    let capacity = room.len().min(MAX_PACKETS) as u32;
    let (port, packets, mut n) = (port.as_raw_handle(), room.as_mut_ptr().cast(), 0);
    // SAFETY: `room` has space for `capacity` packets, a `crate::Event` is laid out as one, and we alone have access.
    // The kernel writes that many at most, and `n` says how many it has written.
    unsafe {
        match ffi::GetQueuedCompletionStatusEx(port, packets, capacity, &mut n, timeout_ms, 0) {
            0 if last_error() == ffi::WAIT_TIMEOUT => Ok(&[]),
            0 => Err(failed("GetQueuedCompletionStatusEx")),
            _ => Ok(slice::from_raw_parts(room.as_ptr().cast(), n as usize)),
        }
    }
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
