//! The system's allocator, counting what each thread asks for: `#[global_allocator] static COUNTING: Counting = Counting;`.
#![allow(unsafe_code)] // an allocator is unsafe by its signature
#![allow(dead_code)] // each test counts in one of the two ways

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Counting;

/// Bytes, of one thread.
#[derive(Clone, Copy, Default)]
pub struct Bytes {
    /// Asked for and not given back.
    pub held: isize,
    /// The most that was ever held.
    pub peak: isize,
    /// Of all large pieces that were ever asked for; smaller ones are names and lists.
    pub large: usize,
}

const SMALL: usize = 4096;

/// Bytes that all threads hold, and the most that they have held.
static ALL: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

/// One test at a time, from before its first byte: what another makes meanwhile would count.
pub struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>);

pub fn alone() -> Alone {
    static ALONE: Mutex<()> = Mutex::new(());
    Alone(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Alone {
    /// The most bytes that all threads hold during `work`, beyond those before.
    pub fn peak_of<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let before = ALL.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let result = work();
        (result, (MOST.load(Ordering::Relaxed) - before) as usize)
    }
}

thread_local! {
    static BYTES: Cell<Bytes> = const { Cell::new(Bytes { held: 0, peak: 0, large: 0 }) };
}

/// What `work` holds afterwards, held at most and asked for, on this thread.
pub fn during<T>(work: impl FnOnce() -> T) -> (T, Bytes) {
    let before = BYTES.get();
    BYTES.set(Bytes { peak: before.held, ..before });
    let result = work();
    let after = BYTES.get();
    BYTES.set(Bytes { peak: after.peak.max(before.peak), ..after });
    let bytes =
        Bytes { held: after.held - before.held, peak: after.peak - before.held, large: after.large - before.large };
    (result, bytes)
}

fn count(from: usize, to: usize) {
    let more = to as isize - from as isize;
    MOST.fetch_max(ALL.fetch_add(more, Ordering::Relaxed) + more, Ordering::Relaxed);
    // A thread that ends frees what nobody counts any more.
    let _ = BYTES.try_with(|bytes| {
        let Bytes { held, peak, large } = bytes.get();
        let held = held + more;
        let large = if to > SMALL { large + to.saturating_sub(from) } else { large };
        bytes.set(Bytes { held, peak: peak.max(held), large });
    });
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        unsafe { System.dealloc(at, layout) }
    }
}
