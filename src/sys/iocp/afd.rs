//! Asking AFD, the driver below Winsock, whether a socket is ready.
//!
//! AFD knows readiness: Winsock's own `select` asks it this question. The question can also be sent as an overlapped
//! operation on the socket, and then the answer is a packet. We lend the kernel the question, in which it writes the
//! answer; but no data is lent, and so none is lost when a stream is dropped. The interface is not documented. mio, wepoll
//! and libuv rely on it as well: <https://github.com/piscisaureus/wepoll>, <https://github.com/tokio-rs/mio/pull/1034>
//!
//! One thing is known to go wrong: of two questions about one socket at the same time, one may get the other's answer, and
//! the other none (<https://github.com/python-trio/trio/blob/main/notes-to-self/afd-lab.py>). So there is one question for
//! each socket, always the same.

use super::ffi::{self, HANDLE};
use crate::Interests;
use std::ptr;

/// Asks to complete when there is room to send, or the connection is broken, or could not be made. To read, a stream
/// receives and does not ask; so what waits for reading here is a listener, for a client that it can accept.
///
/// # Safety
///
/// The socket is open, and `place` and `overlapped` stay valid, and are used by the kernel alone, until the packet was
/// dequeued. After an error they are the caller's again.
pub unsafe fn ask(
    socket: ffi::SOCKET,
    interests: Interests,
    place: *mut ffi::AFD_POLL_INFO,
    overlapped: *mut ffi::OVERLAPPED,
) -> Result<(), i32> {
    let (handle, none, code) = (socket as HANDLE, ptr::null_mut(), ffi::IOCTL_AFD_POLL);
    let question = ffi::AFD_POLL_INFO {
        Timeout: i64::MAX,
        NumberOfHandles: 1,
        Exclusive: 0,
        Handles: [ffi::AFD_POLL_HANDLE_INFO {
            Handle: handle,
            Events: match interests.is_writable() {
                true => ffi::AFD_POLL_SEND | ffi::AFD_POLL_ABORT | ffi::AFD_POLL_CONNECT_FAIL,
                false => ffi::AFD_POLL_ACCEPT,
            },
            Status: 0,
        }],
    };
    // An `OVERLAPPED` begins with an `IO_STATUS_BLOCK`, and its address comes with the packet.
    let (status, packet) = (overlapped.cast(), overlapped.cast());
    let (info, len) = (place.cast(), size_of_val(&question) as u32);
    // SAFETY: as the caller says.
    unsafe {
        *place = question;
        match ffi::NtDeviceIoControlFile(
            handle, none, None, packet, status, code, info, len, info, len,
        ) {
            // Whatever the answer is, a packet comes, unless the status is an error: its two highest bits are set then.
            status if status as u32 >> 30 == 0b11 => Err(ffi::RtlNtStatusToDosError(status) as i32),
            _ => Ok(()),
        }
    }
}
