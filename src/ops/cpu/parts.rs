//! Memory that several threads write, each its own parts.
#![allow(unsafe_code)] // disjoint parts of one slice are written by several threads

use super::float::Real;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A slice whose parts several threads write, each its own.
pub(in crate::ops) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: whoever calls `Parts::at` sees to it that each part is one thread's.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// All of `slice`, to be written in parts.
    pub(in crate::ops) fn of(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The `len` places from `start`.
    ///
    /// # Safety
    /// No other part that overlaps it is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(in crate::ops) unsafe fn at(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part lies inside its slice");
        // SAFETY: inside the slice by the assertion; disjoint from the parts that live by the caller's promise; and `of` has lent
        // the slice to this value alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

impl<T> Parts<'_, MaybeUninit<T>> {
    /// [`Parts::at`], or [`unwritten`] memory of `scratch` where the whole is empty because nobody keeps it.
    ///
    /// # Safety
    /// As of [`Parts::at`].
    #[allow(clippy::mut_from_ref)]
    pub(in crate::ops) unsafe fn or<'s>(
        &'s self,
        start: usize,
        len: usize,
        scratch: &'s mut Vec<T>,
    ) -> &'s mut [MaybeUninit<T>] {
        // SAFETY: the caller's promise, handed on.
        if self.len == 0 { unwritten(scratch, len) } else { unsafe { self.at(start, len) } }
    }
}

/// Memory for values that a kernel writes in parts. Nothing fills it first, so that it is touched once, by who writes it.
pub(in crate::ops) struct Fresh<T> {
    values: Vec<T>,
    len: usize,
}

impl<T> Fresh<T> {
    pub(in crate::ops) fn of(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len }
    }

    /// Memory for `len` values where they are kept, else for none.
    pub(in crate::ops) fn when(kept: bool, len: usize) -> Self {
        Self::of(if kept { len } else { 0 })
    }

    pub(in crate::ops) fn parts(&mut self) -> Parts<'_, MaybeUninit<T>> {
        Parts::of(&mut self.values.spare_capacity_mut()[..self.len])
    }

    /// The values.
    ///
    /// # Safety
    /// Every one of them has been written.
    pub(in crate::ops) unsafe fn written(mut self) -> Vec<T> {
        // SAFETY: the capacity is there since `of`, and the values are written by the caller's promise.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// Memory for `len` values in a buffer that a thread uses again and again; nothing fills it first.
pub(in crate::ops) fn unwritten<T>(buffer: &mut Vec<T>, len: usize) -> &mut [MaybeUninit<T>] {
    buffer.clear();
    buffer.reserve(len);
    &mut buffer.spare_capacity_mut()[..len]
}

/// Fills memory with zeros, and hands it back as values.
#[inline(always)]
pub(in crate::ops) fn zeros<T: Real>(y: &mut [MaybeUninit<T>]) -> &mut [T] {
    for y in y.iter_mut() {
        y.write(T::zero());
    }
    // SAFETY: the loop has written every one.
    unsafe { y.assume_init_mut() }
}

/// Fills memory of whole rows with copies of one, and hands it back as values.
pub(in crate::ops) fn copies<'y, T: Real>(y: &'y mut [MaybeUninit<T>], row: &[T]) -> &'y mut [T] {
    assert!(y.len().is_multiple_of(row.len()), "{} places are whole rows of {}", y.len(), row.len());
    for y in y.chunks_exact_mut(row.len()) {
        y.write_copy_of_slice(row);
    }
    // SAFETY: by the assertion the rows are all of it.
    unsafe { y.assume_init_mut() }
}

/// A place that a kernel writes a value to: one that holds a value of before, or one that nothing was written to.
///
/// # Safety
/// It is laid out as a `T`, and may hold any `T`.
pub(in crate::ops) unsafe trait Place<T> {
    /// Writes the value.
    fn put(&mut self, value: T);
}
