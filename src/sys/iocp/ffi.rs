//! What we need of `<winsock2.h>`, `<minwinbase.h>`, `<ioapiset.h>` and others, under the names it has there.
#![allow(non_camel_case_types, non_snake_case, clippy::upper_case_acronyms)]

use std::ffi::{c_char, c_int, c_void};

pub type HANDLE = *mut c_void;
pub type SOCKET = usize;

/// One operation's state, which is the kernel's while the operation is in flight.
/// <https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-overlapped>
#[repr(C)]
pub struct OVERLAPPED {
    /// The operation's `NTSTATUS`, for `WSAGetOverlappedResult` to read.
    pub Internal: usize,
    /// How many bytes were moved.
    pub InternalHigh: usize,
    /// A place in a file; sockets have none.
    pub Offset: u32,
    pub OffsetHigh: u32,
    pub hEvent: HANDLE,
}

/// A completion packet, as the port brings it.
/// <https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-overlapped_entry>
#[repr(C)]
pub struct OVERLAPPED_ENTRY {
    /// The number that the handle was given when it was associated with the port.
    pub lpCompletionKey: usize,
    /// The operation that is complete.
    pub lpOverlapped: *mut OVERLAPPED,
    /// The operation's `NTSTATUS`. (The page calls it reserved.) 0 in a packet that a program has posted.
    pub Internal: usize,
    pub dwNumberOfBytesTransferred: u32,
}

/// A buffer that is lent. <https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-wsabuf>
#[repr(C)]
pub struct WSABUF {
    pub len: u32,
    pub buf: *mut c_char,
}

pub const INVALID_HANDLE_VALUE: HANDLE = -1isize as HANDLE;
/// A timeout without end.
pub const INFINITE: u32 = u32::MAX;
/// How `GetQueuedCompletionStatusEx` says that the timeout is over.
pub const WAIT_TIMEOUT: c_int = 258;
/// "The receive has begun."
pub const WSA_IO_PENDING: c_int = 997;
/// "There is no room for so many receives", in two ways.
pub const WSAENOBUFS: c_int = 10055;
pub const WSAEWOULDBLOCK: c_int = 10035;
/// Reading was shut down, by us.
pub const WSAESHUTDOWN: c_int = 10058;
/// "The receive goes on."
pub const WSA_IO_INCOMPLETE: c_int = 996;
/// The operation was cancelled.
pub const ERROR_OPERATION_ABORTED: c_int = 995;

#[link(name = "kernel32")]
unsafe extern "system" {
    /// Makes a port; and associates a handle with it, so that what completes on the handle is reported there.
    /// <https://learn.microsoft.com/windows/win32/fileio/createiocompletionport>
    pub fn CreateIoCompletionPort(
        FileHandle: HANDLE,
        ExistingCompletionPort: HANDLE,
        CompletionKey: usize,
        NumberOfConcurrentThreads: u32,
    ) -> HANDLE;

    /// Sleeps until there are packets, and takes them.
    /// <https://learn.microsoft.com/windows/win32/fileio/getqueuedcompletionstatusex-func>
    pub fn GetQueuedCompletionStatusEx(
        CompletionPort: HANDLE,
        lpCompletionPortEntries: *mut OVERLAPPED_ENTRY,
        ulCount: u32,
        ulNumEntriesRemoved: *mut u32,
        dwMilliseconds: u32,
        fAlertable: c_int,
    ) -> c_int;

    /// Puts a packet into the port that no operation has caused.
    /// <https://learn.microsoft.com/windows/win32/fileio/postqueuedcompletionstatus>
    pub fn PostQueuedCompletionStatus(
        CompletionPort: HANDLE,
        dwNumberOfBytesTransferred: u32,
        dwCompletionKey: usize,
        lpOverlapped: *mut OVERLAPPED,
    ) -> c_int;

    /// Asks for an operation to end now; its packet comes all the same.
    /// <https://learn.microsoft.com/windows/win32/fileio/cancelioex-func>
    pub fn CancelIoEx(hFile: HANDLE, lpOverlapped: *const OVERLAPPED) -> c_int;
}

#[link(name = "ws2_32")]
unsafe extern "system" {
    /// Starts a receive into buffers that are the kernel's until it is complete.
    /// <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsarecv>
    pub fn WSARecv(
        s: SOCKET,
        lpBuffers: *const WSABUF,
        dwBufferCount: u32,
        lpNumberOfBytesRecvd: *mut u32,
        lpFlags: *mut u32,
        lpOverlapped: *mut OVERLAPPED,
        lpCompletionRoutine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
    ) -> c_int;

    /// Says whether an operation is complete, and translates its `NTSTATUS` into an error of Winsock's.
    /// <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsagetoverlappedresult>
    pub fn WSAGetOverlappedResult(
        s: SOCKET,
        lpOverlapped: *const OVERLAPPED,
        lpcbTransfer: *mut u32,
        fWait: c_int,
        lpdwFlags: *mut u32,
    ) -> c_int;
}

/// A function to call instead of using a port. We pass none.
pub type LPWSAOVERLAPPED_COMPLETION_ROUTINE =
    Option<unsafe extern "system" fn(u32, u32, *mut OVERLAPPED, u32)>;
