//! Replaces `ffi.rs`, and makes Wine write results as late as Windows does. Windows writes the result of an operation,
//! and AFD's answer, only when the packet is dequeued from the port. Wine writes them at once. `.ci/run windows-late`
//! runs tests with this file.
//! <https://learn.microsoft.com/windows/win32/fileio/i-o-completion-ports>
//!
//! All calls except the last one can be told to fail, for `os_faults_windows.rs`.
#![allow(dead_code, non_snake_case, clippy::too_many_arguments)]

#[path = "ffi.rs"]
mod real;

pub use real::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::{io, mem, slice};

/// The operations that were started, and whose packets were not dequeued yet, by the address that the packet will
/// contain. There is room for all operations of a test, because some tests count allocations.
static KERNEL: LazyLock<Mutex<Kernel>> = LazyLock::new(|| {
    Mutex::new(Kernel {
        receives: HashSet::with_capacity(1 << 13),
        questions: HashMap::with_capacity(1 << 13),
    })
});

struct Kernel {
    receives: HashSet<usize>,
    questions: HashMap<usize, Kept>,
}

/// The memory that Wine writes to, and the places to which the results are copied later.
struct Question {
    status: IO_STATUS_BLOCK,
    info: AFD_POLL_INFO,
    status_place: *mut IO_STATUS_BLOCK,
    info_place: *mut AFD_POLL_INFO,
    is_cancelled: bool,
}

/// A question in memory that the tests do not count, because a kernel's memory is not the program's.
struct Kept(NonNull<Question>);

impl Kept {
    fn new(question: Question) -> Kept {
        // SAFETY: the size is not 0.
        let memory = unsafe { System.alloc(Layout::new::<Question>()) };
        let place = NonNull::new(memory.cast::<Question>()).expect("there is memory");
        // SAFETY: the memory is new, and is large enough.
        unsafe { place.write(question) };
        Kept(place)
    }
}

impl Deref for Kept {
    type Target = Question;

    fn deref(&self) -> &Question {
        // SAFETY: the place is valid until it is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut Question {
        // SAFETY: likewise.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: `new` has allocated it.
        unsafe { System.dealloc(self.0.as_ptr().cast(), Layout::new::<Question>()) }
    }
}

// SAFETY: the pointers are only used under the lock.
unsafe impl Send for Kept {}

/// `STATUS_PENDING`: the operation has not ended.
const PENDING: usize = 0x103;

fn kernel() -> MutexGuard<'static, Kernel> {
    KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn SetLastError(dwErrCode: u32);
}

type Fault = Option<(&'static str, c_int)>;

thread_local! {
    static FAULT: Cell<Fault> = const { Cell::new(None) };
}

/// Makes this thread's next call of that name fail with that error. (`NtDeviceIoControlFile` returns it as a status; if
/// the status is no error, the operation starts nevertheless.) Returns the previous fault if it has not happened.
#[unsafe(no_mangle)]
pub fn set_fault(fault: Fault) -> Fault {
    FAULT.replace(fault)
}

/// Returns how many operations of all streams and loops are in flight.
#[unsafe(no_mangle)]
pub fn operations_in_flight() -> usize {
    let kernel = kernel();
    kernel.receives.len() + kernel.questions.len()
}

/// Forgets all operations. To be called when their loop has given them up, so that their packets will not be dequeued.
#[unsafe(no_mangle)]
pub fn give_up_operations() {
    let mut kernel = kernel();
    kernel.receives.clear();
    kernel
        .questions
        .drain()
        .for_each(|(_, question)| mem::forget(question)); // Wine may still write to it
}

/// Whether this call must fail. If so, sets its error.
fn is_due(call: &str) -> bool {
    due(call).map(fail_with).is_some()
}

fn due(call: &str) -> Option<c_int> {
    let (_, error) = FAULT.get().filter(|fault| fault.0 == call)?;
    FAULT.set(None);
    Some(error)
}

fn fail_with(error: c_int) {
    // SAFETY: only a number is passed.
    unsafe { SetLastError(error as u32) }
}

macro_rules! may_fail {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty, or $failed:expr;)*) => {$(
        pub unsafe fn $name($($arg: $type),*) -> $result {
            match is_due(stringify!($name)) {
                true => $failed,
                // SAFETY: the caller fulfils the same contract.
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
    fn WSASocketW(
        af: c_int, r#type: c_int, protocol: c_int, lpProtocolInfo: *const c_void, g: u32, dwFlags: u32,
    ) -> SOCKET, or INVALID_SOCKET;
    fn connect(s: SOCKET, name: *const c_void, namelen: c_int) -> c_int, or -1;
}

/// Returns its error, and sets no other.
pub unsafe fn WSAStartup(wVersionRequested: u16, lpWSAData: *mut WSADATA) -> c_int {
    // SAFETY: as the caller says.
    due("WSAStartup").unwrap_or_else(|| unsafe { real::WSAStartup(wVersionRequested, lpWSAData) })
}

pub unsafe fn CancelIoEx(hFile: HANDLE, lpOverlapped: *const OVERLAPPED) -> c_int {
    if is_due("CancelIoEx") {
        return 0;
    }
    let mut operation = lpOverlapped;
    if let Some(question) = kernel().questions.get_mut(&lpOverlapped.addr()) {
        question.is_cancelled = true;
        operation = (&raw const question.status).cast(); // the kernel knows it by this address
    }
    // SAFETY: the caller fulfils the same contract, here and below.
    unsafe { real::CancelIoEx(hFile, operation) }
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
    kernel().receives.insert(lpOverlapped.addr());
    // SAFETY: as above.
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
        kernel().receives.remove(&lpOverlapped.addr());
    }
    fail_with(error); // again, because the lock may have changed the last error
    result
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
    let told = due("NtDeviceIoControlFile");
    if let Some(error) = told.filter(|status| *status < 0) {
        return error;
    }
    assert_eq!(IoControlCode, IOCTL_AFD_POLL);
    let question = Question {
        status: IO_STATUS_BLOCK {
            Pointer: ptr::without_provenance_mut(PENDING),
            Information: 0,
        },
        // SAFETY: the caller passes a valid `AFD_POLL_INFO`.
        info: unsafe { InputBuffer.cast::<AFD_POLL_INFO>().read() },
        status_place: IoStatusBlock,
        info_place: OutputBuffer.cast(),
        is_cancelled: false,
    };
    assert_eq!(question.info.Handles[0].Handle, FileHandle);
    let (status, info) = begin(ApcContext.addr(), question);
    // SAFETY: both are kept until the packet is dequeued.
    let result = unsafe {
        real::NtDeviceIoControlFile(
            FileHandle,
            Event,
            ApcRoutine,
            ApcContext,
            status,
            IoControlCode,
            info,
            InputBufferLength,
            info,
            OutputBufferLength,
        )
    };
    if result < 0 {
        kernel().questions.remove(&ApcContext.addr());
    }
    told.unwrap_or(result)
}

/// Stores the question. Returns the places that Wine must write to.
fn begin(address: usize, question: Question) -> (*mut IO_STATUS_BLOCK, *mut c_void) {
    let mut kernel = kernel();
    let is_of_same_socket = |other: &Kept| {
        let same = other.info.Handles[0].Handle == question.info.Handles[0].Handle;
        same && !other.is_cancelled
    };
    let is_second = kernel.questions.values().any(is_of_same_socket);
    assert!(!is_second, "one question may get the answer to the other");
    let kept = Kept::new(question);
    let place = kept.0.as_ptr();
    let previous = kernel.questions.insert(address, kept);
    assert!(previous.is_none(), "the operation is already in flight");
    // SAFETY: the place is valid.
    unsafe { (&raw mut (*place).status, (&raw mut (*place).info).cast()) }
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
    assert!(ulCount <= 1024, "the kernel would check too much memory");
    if is_due("a packet that is not ours") {
        let kernel = kernel();
        for address in kernel.receives.iter().chain(kernel.questions.keys()) {
            let overlapped = ptr::without_provenance_mut(*address);
            // SAFETY: the system does not dereference the address.
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
        // SAFETY: the call has written this many entries.
        let taken = unsafe {
            slice::from_raw_parts(lpCompletionPortEntries, *ulNumEntriesRemoved as usize)
        };
        taken.iter().for_each(end_receive);
        taken.iter().for_each(answer);
    }
    result
}

/// Whether the packet belongs to the operation with this status. If not, other software has posted it. (In Wine, the
/// status may still be pending if the thread that has started the operation exits just as it ends. Then the packet has
/// a status.)
fn has_ended(packet: &OVERLAPPED_ENTRY, status: usize) -> bool {
    status != PENDING || packet.Internal != 0
}

fn end_receive(packet: &OVERLAPPED_ENTRY) {
    let (mut kernel, address) = (kernel(), packet.lpOverlapped.addr());
    // SAFETY: the operation's owner waits for its packet.
    let status = |_: &usize| unsafe { (*packet.lpOverlapped).Internal };
    let status = kernel.receives.get(&address).map(status);
    if status.is_some_and(|status| has_ended(packet, status)) {
        kernel.receives.remove(&address);
    }
}

/// Copies what Wine has written to the caller's memory.
fn answer(packet: &OVERLAPPED_ENTRY) {
    let (mut kernel, address) = (kernel(), packet.lpOverlapped.addr());
    let is_answered = |it: &Kept| has_ended(packet, it.status.Pointer.addr());
    if !kernel.questions.get(&address).is_some_and(is_answered) {
        return;
    }
    let question = kernel.questions.remove(&address).unwrap();
    // SAFETY: the operation's owner waits for its packet.
    unsafe {
        question.status_place.copy_from(&question.status, 1);
        question.info_place.copy_from(&question.info, 1);
    }
}

pub unsafe fn WSAGetOverlappedResult(
    s: SOCKET,
    lpOverlapped: *const OVERLAPPED,
    lpcbTransfer: *mut u32,
    fWait: c_int,
    lpdwFlags: *mut u32,
) -> c_int {
    if kernel().receives.contains(&lpOverlapped.addr()) {
        fail_with(WSA_IO_INCOMPLETE);
        return 0;
    }
    // SAFETY: as above. For a question that is not answered, the call reads what the caller has written there.
    unsafe { real::WSAGetOverlappedResult(s, lpOverlapped, lpcbTransfer, fWait, lpdwFlags) }
}
