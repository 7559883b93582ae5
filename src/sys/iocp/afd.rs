//! Asking AFD, the driver below Winsock, whether a socket is ready.
//!
//! AFD knows which sockets are ready: Winsock's own `select` asks it this question. We send the question as an
//! overlapped operation on the socket, and its packet says that there is an answer. We lend the kernel the question,
//! and the kernel writes the answer over it. But we lend no data, so no data is lost when a stream is dropped. The
//! interface is not documented. mio, wepoll and libuv rely on it as well: <https://github.com/piscisaureus/wepoll>,
//! <https://github.com/tokio-rs/mio/pull/1034>
//!
//! There is one known problem: of two questions about one socket at the same time, one may get the other's answer, and
//! the other none (<https://github.com/python-trio/trio/blob/main/notes-to-self/afd-lab.py>). So we ask one question
//! about each socket, always the same.

use super::ffi::{self, HANDLE};
use crate::Interests;
use std::ptr;

/// The operation completes when there is room to send, when the connection is broken, or when connecting has failed. A
/// stream does not ask in order to read, because it receives. So only a listener asks about reading: its operation
/// completes when there is a client to accept.
///
/// # Safety
///
/// The socket is open. Until the packet is dequeued, `place` and `overlapped` stay valid, and only the kernel uses
/// them. After an error they belong to the caller again.
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
    // An `OVERLAPPED` begins with an `IO_STATUS_BLOCK`. The packet's `lpOverlapped` will be the argument `ApcContext`,
    // so we pass the address of the `OVERLAPPED` there, as Win32's own functions do.
    let (status, packet) = (overlapped.cast(), overlapped.cast());
    let (info, len) = (place.cast(), size_of_val(&question) as u32);
    // SAFETY: as the caller promises.
    unsafe {
        *place = question;
        // As `WSARecv` does. By this value `WSAGetOverlappedResult` recognizes that the operation is still in flight.
        (*overlapped).Internal = ffi::STATUS_PENDING as usize;
        match ffi::NtDeviceIoControlFile(
            handle, none, None, packet, status, code, info, len, info, len,
        ) {
            // A packet comes, unless the status is an error. (The two highest bits of an error are set.)
            status if status as u32 >> 30 == 0b11 => Err(ffi::RtlNtStatusToDosError(status) as i32),
            _ => Ok(()),
        }
    }
}
