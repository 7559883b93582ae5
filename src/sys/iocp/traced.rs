//! The functions of `ffi.rs` with a line for each call. The backend calls these if the feature `trace` is on.
//!
//! No line has a token, because we pass none to the kernel. A line names an operation by the address of its
//! `OVERLAPPED`.
#![allow(non_snake_case, clippy::too_many_arguments)]

#[path = "ffi.rs"]
mod real;

use crate::sys::trace::{Call, Events, Flags, Name, Named, Timeout, socket_addr};
pub use real::*;
use std::ffi::{c_int, c_void};
use std::{fmt, slice};

struct Operation(*const OVERLAPPED);

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            0 => f.write_str("no operation"),
            address => write!(f, "operation {address:#x}"),
        }
    }
}

impl fmt::Display for OVERLAPPED_ENTRY {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = Bytes(self.dwNumberOfBytesTransferred);
        write!(f, "{bytes} of {}", Operation(self.lpOverlapped))
    }
}

pub struct Port(pub usize);

impl Named for Port {
    fn name(&self) -> impl fmt::Display {
        Port(self.0)
    }

    fn closed_by(&self) -> &'static str {
        "CloseHandle"
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no port"),
            port => write!(f, "port {port:#x}"),
        }
    }
}

/// The handle to associate with the port: a socket, or none when the port is created.
struct Handle(HANDLE);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            INVALID_HANDLE_VALUE => f.write_str("INVALID_HANDLE_VALUE"),
            socket => write!(f, "socket {:#x}", socket.addr()),
        }
    }
}

/// An `NTSTATUS`.
struct Status(NTSTATUS);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("STATUS_SUCCESS"),
            0x103 => f.write_str("STATUS_PENDING"),
            status => write!(f, "{status:#x}"),
        }
    }
}

struct Bytes(u32);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// The events that we ask for, and others that AFD may answer with.
const AFD_EVENTS: &[(u32, &str)] = &[
    (AFD_POLL_SEND, "AFD_POLL_SEND"),
    (AFD_POLL_ABORT, "AFD_POLL_ABORT"),
    (AFD_POLL_ACCEPT, "AFD_POLL_ACCEPT"),
    (AFD_POLL_CONNECT_FAIL, "AFD_POLL_CONNECT_FAIL"),
    (0x0020, "AFD_POLL_LOCAL_CLOSE"),
];

const FAMILIES: &[(i64, &str)] = &[(AF_INET as i64, "AF_INET"), (AF_INET6 as i64, "AF_INET6")];

const SOCKET_FLAGS: &[(u32, &str)] = &[
    (WSA_FLAG_OVERLAPPED, "WSA_FLAG_OVERLAPPED"),
    (WSA_FLAG_NO_HANDLE_INHERIT, "WSA_FLAG_NO_HANDLE_INHERIT"),
];

fn timeout(milliseconds: u32) -> Timeout {
    match milliseconds {
        INFINITE => Timeout(-1),
        ms => Timeout(ms.into()),
    }
}

pub unsafe fn CreateIoCompletionPort(
    FileHandle: HANDLE,
    ExistingCompletionPort: HANDLE,
    CompletionKey: usize,
    NumberOfConcurrentThreads: u32,
) -> HANDLE {
    let mut port = std::ptr::null_mut();
    let call = Call::make(0, || {
        // SAFETY: as the caller promises, here and below.
        port = unsafe {
            real::CreateIoCompletionPort(
                FileHandle,
                ExistingCompletionPort,
                CompletionKey,
                NumberOfConcurrentThreads,
            )
        };
        port.addr()
    });
    let (handle, existing) = (Handle(FileHandle), Port(ExistingCompletionPort.addr()));
    call.tell(
        format_args!("CreateIoCompletionPort({handle}, {existing}, key {CompletionKey})"),
        Port(port.addr()),
    );
    port
}

pub unsafe fn GetQueuedCompletionStatusEx(
    CompletionPort: HANDLE,
    lpCompletionPortEntries: *mut OVERLAPPED_ENTRY,
    ulCount: u32,
    ulNumEntriesRemoved: *mut u32,
    dwMilliseconds: u32,
    fAlertable: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let call = Call::wait(0, || unsafe {
        real::GetQueuedCompletionStatusEx(
            CompletionPort,
            lpCompletionPortEntries,
            ulCount,
            ulNumEntriesRemoved,
            dwMilliseconds,
            fAlertable,
        )
    });
    let n = match call.has_failed() {
        true => 0,
        // SAFETY: the caller passes a place for the number.
        false => unsafe { *ulNumEntriesRemoved },
    };
    // SAFETY: the kernel has written this many.
    let came = unsafe { slice::from_raw_parts(lpCompletionPortEntries, n as usize) };
    let (port, timeout) = (Port(CompletionPort.addr()), timeout(dwMilliseconds));
    call.tell(
        format_args!("GetQueuedCompletionStatusEx({port}, capacity {ulCount}, {timeout})"),
        Events(came),
    )
}

pub unsafe fn PostQueuedCompletionStatus(
    CompletionPort: HANDLE,
    dwNumberOfBytesTransferred: u32,
    dwCompletionKey: usize,
    lpOverlapped: *mut OVERLAPPED,
) -> c_int {
    // SAFETY: as the caller promises.
    let call = Call::make(0, || unsafe {
        real::PostQueuedCompletionStatus(
            CompletionPort,
            dwNumberOfBytesTransferred,
            dwCompletionKey,
            lpOverlapped,
        )
    });
    let (port, operation) = (Port(CompletionPort.addr()), Operation(lpOverlapped));
    let (bytes, result) = (Bytes(dwNumberOfBytesTransferred), call.result);
    call.tell(
        format_args!("PostQueuedCompletionStatus({port}, {bytes}, {operation})"),
        result,
    )
}

pub unsafe fn CancelIoEx(hFile: HANDLE, lpOverlapped: *const OVERLAPPED) -> c_int {
    // SAFETY: as the caller promises.
    let call = Call::make(0, || unsafe { real::CancelIoEx(hFile, lpOverlapped) });
    let (handle, operation, result) = (Handle(hFile), Operation(lpOverlapped), call.result);
    call.tell(format_args!("CancelIoEx({handle}, {operation})"), result)
}

pub unsafe fn WSAStartup(wVersionRequested: u16, lpWSAData: *mut WSADATA) -> c_int {
    // This function returns its error instead of setting `WSAGetLastError`, so no result counts as failed here.
    // SAFETY: as the caller promises.
    let call = Call::make(-1, || unsafe {
        real::WSAStartup(wVersionRequested, lpWSAData)
    });
    let (major, minor) = (wVersionRequested & 0xff, wVersionRequested >> 8);
    let result = call.result;
    call.tell(format_args!("WSAStartup(version {major}.{minor})"), result)
}

pub unsafe fn WSASocketW(
    af: c_int,
    r#type: c_int,
    protocol: c_int,
    lpProtocolInfo: *const c_void,
    g: u32,
    dwFlags: u32,
) -> SOCKET {
    // SAFETY: as the caller promises.
    let call = Call::make(INVALID_SOCKET, || unsafe {
        real::WSASocketW(af, r#type, protocol, lpProtocolInfo, g, dwFlags)
    });
    let (family, kind) = (
        Name(af.into(), FAMILIES),
        Name(r#type.into(), &[(SOCK_STREAM as i64, "SOCK_STREAM")]),
    );
    let (flags, made) = (Flags(dwFlags, SOCKET_FLAGS), Handle(call.result as HANDLE));
    call.tell(
        format_args!("WSASocketW({family}, {kind}, {protocol}, {flags})"),
        made,
    )
}

pub unsafe fn connect(s: SOCKET, name: *const c_void, namelen: c_int) -> c_int {
    // SAFETY: as the caller promises.
    let call = Call::make(-1, || unsafe { real::connect(s, name, namelen) });
    // SAFETY: the caller passes an address of one of our two kinds, and its length.
    let addr = unsafe { socket_addr(name, namelen as usize) };
    let result = call.result;
    call.tell(format_args!("connect(socket {s:#x}, {addr})"), result)
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
    // SAFETY: as the caller promises.
    let call = Call::make(-1, || unsafe {
        real::WSARecv(
            s,
            lpBuffers,
            dwBufferCount,
            lpNumberOfBytesRecvd,
            lpFlags,
            lpOverlapped,
            lpCompletionRoutine,
        )
    });
    // SAFETY: the caller passes at least one buffer.
    let lent = Bytes(unsafe { (*lpBuffers).len });
    let (operation, result) = (Operation(lpOverlapped), call.result);
    call.tell(
        format_args!("WSARecv(socket {s:#x}, {lent} lent, {operation})"),
        result,
    )
}

pub unsafe fn WSAGetOverlappedResult(
    s: SOCKET,
    lpOverlapped: *const OVERLAPPED,
    lpcbTransfer: *mut u32,
    fWait: c_int,
    lpdwFlags: *mut u32,
) -> c_int {
    // SAFETY: as the caller promises.
    let call = Call::make(0, || unsafe {
        real::WSAGetOverlappedResult(s, lpOverlapped, lpcbTransfer, fWait, lpdwFlags)
    });
    let operation = Operation(lpOverlapped);
    // SAFETY: the caller passes a place for the number.
    let bytes = Bytes(unsafe { *lpcbTransfer });
    call.tell(
        format_args!("WSAGetOverlappedResult(socket {s:#x}, {operation})"),
        bytes,
    )
}

pub unsafe fn NtDeviceIoControlFile(
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
) -> NTSTATUS {
    // Read before the call, because AFD may write its answer to the same place.
    // SAFETY: the caller passes a question to AFD.
    let question = unsafe { &*InputBuffer.cast::<AFD_POLL_INFO>() };
    let events = Flags(question.Handles[0].Events, AFD_EVENTS);
    let call = Call::make(NTSTATUS::MIN, || {
        // SAFETY: as the caller promises.
        unsafe {
            real::NtDeviceIoControlFile(
                FileHandle,
                Event,
                ApcRoutine,
                ApcContext,
                IoStatusBlock,
                IoControlCode,
                InputBuffer,
                InputBufferLength,
                OutputBuffer,
                OutputBufferLength,
            )
        }
    });
    let (handle, operation) = (Handle(FileHandle), Operation(ApcContext.cast()));
    let control_code = Name(
        IoControlCode.into(),
        &[(IOCTL_AFD_POLL as i64, "IOCTL_AFD_POLL")],
    );
    let status = Status(call.result);
    call.tell(
        format_args!("NtDeviceIoControlFile({handle}, {control_code}, {events}, {operation})"),
        status,
    )
}
