//! How much memory a value takes, counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread asks for.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe by nature; this one passes everything on")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may free and ask after its counter is gone.
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes on the heap that a copy of what `value` keeps takes.
pub(crate) fn held_by<T: Kept>(value: &T) -> usize {
    let before = ALLOCATED.with(Cell::get);
    let copy = value.kept();
    let after = ALLOCATED.with(Cell::get);
    drop(copy);
    after - before
}

/// Something of which a part is what the product keeps.
pub(crate) trait Kept {
    type Copy;
    fn kept(&self) -> Self::Copy;
}
