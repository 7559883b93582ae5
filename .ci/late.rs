//! `ffi.rs`, with Windows' lateness, which Wine does not have. On Windows, what became of an operation is written into its
//! `OVERLAPPED` only when the packet is taken from the port, and the socket's handle is signalled only then. Under Wine both
//! are done at once. `.ci/run windows` runs tests with this file in the place of `ffi.rs`.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
#![allow(dead_code, non_snake_case, clippy::too_many_arguments)]

#[path = "ffi.rs"]
mod real;

pub use real::*;
use std::collections::HashSet;
use std::ffi::c_int;
use std::sync::{LazyLock, Mutex};
use std::{io, slice, thread, time::Duration};

/// The operations that were begun, and whose packets nobody has taken.
static BEGUN: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

#[link(name = "kernel32")]
unsafe extern "system" {
    fn SetLastError(dwErrCode: u32);
}

pub unsafe fn WSARecv(
    s: SOCKET,
    lpBuffers: *const WSABUF,
    dwBufferCount: u32,
    lpNumberOfBytesRecvd: *mut u32,
    lpFlags: *mut u32,
    lpOverlapped: *mut OVERLAPPED,
    lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> c_int {
    BEGUN.lock().unwrap().insert(lpOverlapped.addr());
    // SAFETY: as the caller says, here and below.
    let result = unsafe {
        real::WSARecv(
            s,
            lpBuffers,
            dwBufferCount,
            lpNumberOfBytesRecvd,
            lpFlags,
            lpOverlapped,
            lpCompletionRoutine,
        )
    };
    let error = io::Error::last_os_error().raw_os_error().unwrap();
    if result != 0 && error != WSA_IO_PENDING {
        BEGUN.lock().unwrap().remove(&lpOverlapped.addr());
    }
    // SAFETY: a number is passed. What is done with a lock may have set it.
    unsafe { SetLastError(error as u32) };
    result
}

pub unsafe fn GetQueuedCompletionStatusEx(
    CompletionPort: HANDLE,
    lpCompletionPortEntries: *mut OVERLAPPED_ENTRY,
    ulCount: u32,
    ulNumEntriesRemoved: *mut u32,
    dwMilliseconds: u32,
    fAlertable: c_int,
) -> c_int {
    // SAFETY: as above.
    let result = unsafe {
        real::GetQueuedCompletionStatusEx(
            CompletionPort,
            lpCompletionPortEntries,
            ulCount,
            ulNumEntriesRemoved,
            dwMilliseconds,
            fAlertable,
        )
    };
    if result != 0 {
        // SAFETY: so many were written.
        let taken = unsafe {
            slice::from_raw_parts(lpCompletionPortEntries, *ulNumEntriesRemoved as usize)
        };
        let mut begun = BEGUN.lock().unwrap();
        for packet in taken {
            begun.remove(&packet.lpOverlapped.addr());
        }
    }
    result
}

pub unsafe fn WSAGetOverlappedResult(
    s: SOCKET,
    lpOverlapped: *const OVERLAPPED,
    lpcbTransfer: *mut u32,
    fWait: c_int,
    lpdwFlags: *mut u32,
) -> c_int {
    if BEGUN.lock().unwrap().contains(&lpOverlapped.addr()) {
        // SAFETY: as above.
        unsafe { SetLastError(WSA_IO_INCOMPLETE as u32) };
        return 0;
    }
    // SAFETY: as above.
    unsafe { real::WSAGetOverlappedResult(s, lpOverlapped, lpcbTransfer, fWait, lpdwFlags) }
}

/// The signal may have been missed, and so nothing may depend on it.
pub unsafe fn WaitForSingleObject(_: HANDLE, dwMilliseconds: u32) -> u32 {
    thread::sleep(Duration::from_millis(dwMilliseconds.into()));
    WAIT_TIMEOUT as u32
}
