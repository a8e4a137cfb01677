//! Counts what a thread has allocated.
//!
//! Gets every allocation of the test binary, passes it on to the system and keeps the sum of each thread's. What then
//! holds: no thread has more than [`MAX_BYTES`]; what asks for more gets nothing, which ends the process. Never counts
//! across threads: memory that another thread frees stays counted.

#![expect(unsafe_code, reason = "an allocator is unsafe by its trait; this one adds numbers and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// More than any input may ask for.
const MAX_BYTES: usize = 2 << 30;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE_BYTES: Cell<usize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Counts an allocation, or says that it is too much.
fn grow(bytes: usize) -> bool {
    let live = LIVE_BYTES.get().saturating_add(bytes);
    if live > MAX_BYTES {
        return false;
    }
    LIVE_BYTES.set(live);
    PEAK_BYTES.set(PEAK_BYTES.get().max(live));
    true
}

// SAFETY: every call is passed on to the system's allocator, or answered with null, which stands for no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grow(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.set(LIVE_BYTES.get().saturating_sub(layout.size()));
        // SAFETY: the caller's promise is passed on: the pointer came from `alloc` above, so from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a call returns, and the most bytes that it had at a time, beyond those that the thread had before.
pub fn peak<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE_BYTES.get();
    PEAK_BYTES.set(before);
    let result = call();
    (result, PEAK_BYTES.get().saturating_sub(before))
}
