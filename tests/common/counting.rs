//! An allocator that counts. A test program uses it with `#[global_allocator] static GLOBAL: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

/// Counts for one thread, because the threads of the test harness allocate too.
#[allow(clippy::missing_const_for_thread_local)] // they are const; on one target, clippy does not see that
mod of_this_thread {
    use super::Cell;
    thread_local! {
        pub static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
        pub static BYTES: Cell<isize> = const { Cell::new(0) };
    }
}

/// How often this thread has allocated so far.
pub fn allocations() -> usize {
    of_this_thread::ALLOCATIONS.get()
}

/// How many bytes this thread has allocated, without those that it has freed.
pub fn live_bytes() -> isize {
    of_this_thread::BYTES.get()
}

/// The same, for all threads together.
pub fn live_bytes_of_all_threads() -> isize {
    LIVE_BYTES.load(Relaxed)
}

static LIVE_BYTES: AtomicIsize = AtomicIsize::new(0);

pub struct Counting;

// SAFETY: all calls are passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        of_this_thread::ALLOCATIONS.set(allocations() + 1);
        of_this_thread::BYTES.set(live_bytes() + layout.size() as isize);
        LIVE_BYTES.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller fulfils the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        of_this_thread::BYTES.set(live_bytes() - layout.size() as isize);
        LIVE_BYTES.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller fulfils the same contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}
