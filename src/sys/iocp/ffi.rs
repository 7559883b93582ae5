//! The parts of `<winsock2.h>`, `<minwinbase.h>`, `<ioapiset.h>` and other headers that we use, with the names from
//! there.
#![allow(non_camel_case_types, non_snake_case, clippy::upper_case_acronyms)]

use std::ffi::{c_char, c_int, c_void};

pub type HANDLE = *mut c_void;
pub type NTSTATUS = i32;
pub type SOCKET = usize;

/// The state of an operation. It belongs to the kernel while the operation is in flight.
/// <https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-overlapped>
#[repr(C)]
pub struct OVERLAPPED {
    /// The operation's `NTSTATUS`, which `WSAGetOverlappedResult` reads.
    pub Internal: usize,
    /// How many bytes were transferred.
    pub InternalHigh: usize,
    /// An offset in a file. Sockets have none.
    pub Offset: u32,
    pub OffsetHigh: u32,
    pub hEvent: HANDLE,
}

/// A completion packet.
/// <https://learn.microsoft.com/windows/win32/api/minwinbase/ns-minwinbase-overlapped_entry>
#[repr(C)]
pub struct OVERLAPPED_ENTRY {
    /// The number that we passed when we associated the handle with the port.
    pub lpCompletionKey: usize,
    /// The operation that is complete.
    pub lpOverlapped: *mut OVERLAPPED,
    /// The lower 32 bits are the operation's `NTSTATUS`, and 0 in a packet that a program has posted. (The page calls
    /// the field reserved. Wine does not write the other bits.)
    pub Internal: usize,
    pub dwNumberOfBytesTransferred: u32,
}

/// What `OVERLAPPED` begins with.
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ns-wdm-_io_status_block>
#[repr(C)]
pub struct IO_STATUS_BLOCK {
    /// Or the `NTSTATUS`, in a union.
    pub Pointer: *mut c_void,
    pub Information: usize,
}

/// A question to AFD, and its answer. No header of Microsoft's declares it. The names are those that others use:
/// <https://github.com/piscisaureus/wepoll/blob/dist/wepoll.c>
#[repr(C)]
pub struct AFD_POLL_INFO {
    pub Timeout: i64,
    pub NumberOfHandles: u32,
    pub Exclusive: u32,
    pub Handles: [AFD_POLL_HANDLE_INFO; 1],
}

#[repr(C)]
pub struct AFD_POLL_HANDLE_INFO {
    pub Handle: HANDLE,
    /// In the question, what to wait for. In the answer, what has happened.
    pub Events: u32,
    pub Status: NTSTATUS,
}

/// A buffer to lend. <https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-wsabuf>
#[repr(C)]
pub struct WSABUF {
    pub len: u32,
    pub buf: *mut c_char,
}

/// Winsock's description of itself.
/// <https://learn.microsoft.com/windows/win32/api/winsock2/ns-winsock2-wsadata>
#[repr(C)]
pub struct WSADATA {
    pub wVersion: u16,
    pub wHighVersion: u16,
    #[cfg(target_pointer_width = "64")]
    pub iMaxSockets: u16,
    #[cfg(target_pointer_width = "64")]
    pub iMaxUdpDg: u16,
    #[cfg(target_pointer_width = "64")]
    pub lpVendorInfo: *mut c_char,
    pub szDescription: [c_char; 257],
    pub szSystemStatus: [c_char; 129],
    #[cfg(target_pointer_width = "32")]
    pub iMaxSockets: u16,
    #[cfg(target_pointer_width = "32")]
    pub iMaxUdpDg: u16,
    #[cfg(target_pointer_width = "32")]
    pub lpVendorInfo: *mut c_char,
}

pub type ADDRESS_FAMILY = u16;

/// An IPv4 address and port, both in network byte order.
/// <https://learn.microsoft.com/windows/win32/api/ws2def/ns-ws2def-sockaddr_in>
#[repr(C)]
pub struct sockaddr_in {
    pub sin_family: ADDRESS_FAMILY,
    pub sin_port: u16,
    pub sin_addr: in_addr,
    pub sin_zero: [c_char; 8],
}

#[repr(C)]
pub struct in_addr {
    pub s_addr: u32,
}

/// An IPv6 address and port, in network byte order, with the flow and the interface.
/// <https://learn.microsoft.com/windows/win32/api/ws2ipdef/ns-ws2ipdef-sockaddr_in6_lh>
#[repr(C)]
pub struct sockaddr_in6 {
    pub sin6_family: ADDRESS_FAMILY,
    pub sin6_port: u16,
    pub sin6_flowinfo: u32,
    pub sin6_addr: in6_addr,
    pub sin6_scope_id: u32,
}

#[repr(C, align(2))]
pub struct in6_addr {
    pub s6_addr: [u8; 16],
}

pub const AF_INET: c_int = 2;
pub const AF_INET6: c_int = 23;
pub const SOCK_STREAM: c_int = 1;
/// Operations on the socket can be overlapped.
pub const WSA_FLAG_OVERLAPPED: u32 = 0x01;
/// Child programs do not inherit the socket. (Since Windows 7 with Service Pack 1.)
pub const WSA_FLAG_NO_HANDLE_INHERIT: u32 = 0x80;
pub const INVALID_SOCKET: SOCKET = SOCKET::MAX;

pub const INVALID_HANDLE_VALUE: HANDLE = -1isize as HANDLE;
/// A timeout that never expires.
pub const INFINITE: u32 = u32::MAX;
/// `GetQueuedCompletionStatusEx`: the timeout has expired.
pub const WAIT_TIMEOUT: c_int = 258;
/// The operation has not ended.
pub const STATUS_PENDING: NTSTATUS = 0x103;
/// The receive has started.
pub const WSA_IO_PENDING: c_int = 997;
/// There is not enough memory for another receive.
pub const WSAENOBUFS: c_int = 10055;
/// From an overlapped `WSARecv`: too many are in flight. From `connect`: the connection is being made.
pub const WSAEWOULDBLOCK: c_int = 10035;
/// We have shut down reading.
pub const WSAESHUTDOWN: c_int = 10058;
/// The operation is still in flight.
pub const WSA_IO_INCOMPLETE: c_int = 996;
/// The operation was cancelled.
pub const ERROR_OPERATION_ABORTED: c_int = 995;

pub const IOCTL_AFD_POLL: u32 = 0x0001_2024;
/// There is room to send.
pub const AFD_POLL_SEND: u32 = 0x0004;
/// The peer has reset the connection, or it was aborted here.
pub const AFD_POLL_ABORT: u32 = 0x0010;
/// A client waits to be accepted.
pub const AFD_POLL_ACCEPT: u32 = 0x0080;
/// The connection could not be made.
pub const AFD_POLL_CONNECT_FAIL: u32 = 0x0100;

#[link(name = "kernel32")]
unsafe extern "system" {
    /// Creates a port, or associates a handle with a port, so that the port reports completed operations on the handle.
    /// <https://learn.microsoft.com/windows/win32/fileio/createiocompletionport>
    pub fn CreateIoCompletionPort(
        FileHandle: HANDLE,
        ExistingCompletionPort: HANDLE,
        CompletionKey: usize,
        NumberOfConcurrentThreads: u32,
    ) -> HANDLE;

    /// Sleeps until there are packets, and dequeues them.
    /// <https://learn.microsoft.com/windows/win32/fileio/getqueuedcompletionstatusex-func>
    pub fn GetQueuedCompletionStatusEx(
        CompletionPort: HANDLE,
        lpCompletionPortEntries: *mut OVERLAPPED_ENTRY,
        ulCount: u32,
        ulNumEntriesRemoved: *mut u32,
        dwMilliseconds: u32,
        fAlertable: c_int,
    ) -> c_int;

    /// Queues a packet of our own to the port.
    /// <https://learn.microsoft.com/windows/win32/fileio/postqueuedcompletionstatus>
    pub fn PostQueuedCompletionStatus(
        CompletionPort: HANDLE,
        dwNumberOfBytesTransferred: u32,
        dwCompletionKey: usize,
        lpOverlapped: *mut OVERLAPPED,
    ) -> c_int;

    /// Asks the kernel to end an operation. Its packet comes all the same.
    /// <https://learn.microsoft.com/windows/win32/fileio/cancelioex-func>
    pub fn CancelIoEx(hFile: HANDLE, lpOverlapped: *const OVERLAPPED) -> c_int;
}

#[link(name = "ws2_32")]
unsafe extern "system" {
    /// Starts Winsock, in at least this version.
    /// <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsastartup>
    pub fn WSAStartup(wVersionRequested: u16, lpWSAData: *mut WSADATA) -> c_int;

    /// Creates a socket. <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsasocketw>
    pub fn WSASocketW(
        af: c_int,
        r#type: c_int,
        protocol: c_int,
        lpProtocolInfo: *const c_void,
        g: u32,
        dwFlags: u32,
    ) -> SOCKET;

    /// Starts a connection. Does not wait for it if the socket is non-blocking.
    /// <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-connect>
    pub fn connect(s: SOCKET, name: *const c_void, namelen: c_int) -> c_int;

    /// Starts a receive into buffers that belong to the kernel until the receive has ended.
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

    /// Reports whether an operation is complete, and translates its `NTSTATUS` into a Winsock error.
    /// <https://learn.microsoft.com/windows/win32/api/winsock2/nf-winsock2-wsagetoverlappedresult>
    pub fn WSAGetOverlappedResult(
        s: SOCKET,
        lpOverlapped: *const OVERLAPPED,
        lpcbTransfer: *mut u32,
        fWait: c_int,
        lpdwFlags: *mut u32,
    ) -> c_int;
}

#[link(name = "ntdll")]
unsafe extern "system" {
    /// Sends a driver a request, here `IOCTL_AFD_POLL`.
    /// <https://learn.microsoft.com/windows/win32/api/winternl/nf-winternl-ntdeviceiocontrolfile>
    pub fn NtDeviceIoControlFile(
        FileHandle: HANDLE,
        Event: HANDLE,
        ApcRoutine: PIO_APC_ROUTINE,
        ApcContext: *const c_void,
        IoStatusBlock: *mut IO_STATUS_BLOCK,
        IoControlCode: u32,
        InputBuffer: *const c_void,
        InputBufferLength: u32,
        OutputBuffer: *mut c_void,
        OutputBufferLength: u32,
    ) -> NTSTATUS;

    /// Translates an `NTSTATUS` into a Win32 error.
    /// <https://learn.microsoft.com/windows/win32/api/winternl/nf-winternl-rtlntstatustodoserror>
    pub fn RtlNtStatusToDosError(Status: NTSTATUS) -> u32;
}

/// A function to call instead of using a port. We pass none.
pub type PIO_APC_ROUTINE =
    Option<unsafe extern "system" fn(*mut c_void, *mut IO_STATUS_BLOCK, u32)>;

/// We pass none of these either.
pub type LPWSAOVERLAPPED_COMPLETION_ROUTINE =
    Option<unsafe extern "system" fn(u32, u32, *mut OVERLAPPED, u32)>;
