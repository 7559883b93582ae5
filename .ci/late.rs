//! `ffi.rs`, with Windows' lateness, which Wine does not have. Windows writes the result of an operation into its
//! `OVERLAPPED` only when the packet is dequeued from the port. Wine writes it at once. `.ci/run windows-late` runs tests
//! with this file in the place of `ffi.rs`.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! And all calls but the last one can be told to fail, for `os_faults_windows.rs`.
#![allow(dead_code, non_snake_case, clippy::too_many_arguments)]

#[path = "ffi.rs"]
mod real;

pub use real::*;
use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::c_int;
use std::sync::{LazyLock, Mutex};
use std::{io, ptr, slice};

/// The operations that were begun, and whose packets nobody has taken.
static BEGUN: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

const STATUS_PENDING: usize = 0x103;

#[link(name = "kernel32")]
unsafe extern "system" {
    fn SetLastError(dwErrCode: u32);
}

type Fault = Option<(&'static str, c_int)>;

thread_local! {
    static FAULT: Cell<Fault> = const { Cell::new(None) };
}

/// The next call of that name, by this thread, fails with that error. Returns the one that was to fail before, and did not.
#[unsafe(no_mangle)]
pub fn set_fault(fault: Fault) -> Fault {
    FAULT.replace(fault)
}

/// Whether it is this call's turn to fail.
fn is_due(call: &str) -> bool {
    let Some((_, error)) = FAULT.get().filter(|fault| fault.0 == call) else {
        return false;
    };
    FAULT.set(None);
    fail_with(error);
    true
}

fn fail_with(error: c_int) {
    // SAFETY: a number is passed.
    unsafe { SetLastError(error as u32) }
}

macro_rules! may_fail {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty, or $failed:expr;)*) => {$(
        pub unsafe fn $name($($arg: $type),*) -> $result {
            match is_due(stringify!($name)) {
                true => $failed,
                // SAFETY: as the caller says.
                false => unsafe { real::$name($($arg),*) },
            }
        }
    )*};
}

may_fail! {
    fn CreateIoCompletionPort(
        FileHandle: HANDLE, ExistingCompletionPort: HANDLE, CompletionKey: usize, NumberOfConcurrentThreads: u32,
    ) -> HANDLE, or ptr::null_mut();
    fn PostQueuedCompletionStatus(
        CompletionPort: HANDLE, dwNumberOfBytesTransferred: u32, dwCompletionKey: usize, lpOverlapped: *mut OVERLAPPED,
    ) -> c_int, or 0;
    fn CancelIoEx(hFile: HANDLE, lpOverlapped: *const OVERLAPPED) -> c_int, or 0;
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
    if is_due("WSARecv") {
        return -1;
    }
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
    fail_with(error); // again, for what is done with a lock may have said something else
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
    if is_due("GetQueuedCompletionStatusEx") {
        return 0;
    }
    assert!(ulCount <= 1024, "the kernel has to look at so much memory");
    if is_due("a packet that is not ours") {
        for address in BEGUN.lock().unwrap().iter() {
            let overlapped = ptr::without_provenance_mut(*address);
            // SAFETY: the address is not looked at.
            unsafe { real::PostQueuedCompletionStatus(CompletionPort, 0, 0, overlapped) };
        }
    }
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
            // SAFETY: the operation's owner waits for its packet.
            if unsafe { packet.lpOverlapped.as_ref() }.is_some_and(|it| it.Internal != STATUS_PENDING) {
                begun.remove(&packet.lpOverlapped.addr());
            }
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
        fail_with(WSA_IO_INCOMPLETE);
        return 0;
    }
    // SAFETY: as above.
    unsafe { real::WSAGetOverlappedResult(s, lpOverlapped, lpcbTransfer, fWait, lpdwFlags) }
}
