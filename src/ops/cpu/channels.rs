//! Groups of channels that fill a vector register, in rows of them.
#![allow(unsafe_code)] // loads and stores in inner loops, whose bounds the loops' owners have checked

use super::float::Real;
use super::parts::Place;
use pulp::Simd;

/// A register's channels of a pixel, or what the last register has left of them.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Channels {
    pub(in crate::ops) first: usize,
    pub(in crate::ops) count: usize,
}

/// Calls `f` for groups of channels that cover all r: whole registers, and what is left.
macro_rules! by_channels {
    ($t:ty, $s:ty, $r:expr, |$channels:ident, $whole:ident| $call:expr) => {{
        let (r, count) = ($r, <$t as $crate::ops::cpu::registers::Lanes>::lanes::<$s>());
        let mut first = 0;
        while first + count <= r {
            const $whole: bool = true;
            let $channels = $crate::ops::cpu::channels::Channels { first, count };
            $call;
            first += count;
        }
        if first < r {
            const $whole: bool = false;
            let $channels = $crate::ops::cpu::channels::Channels { first, count: r - first };
            $call;
        }
    }};
}

pub(in crate::ops) use by_channels;

impl Channels {
    /// The channels of the pixel that begins at `pixel`.
    ///
    /// # Safety
    /// They lie inside the slice.
    #[inline(always)]
    pub(in crate::ops) unsafe fn load<T: Real, S: Simd, const WHOLE: bool>(
        self,
        simd: S,
        from: &[T],
        pixel: usize,
    ) -> T::Of<S> {
        debug_assert!(pixel + self.first + self.count <= from.len());
        // SAFETY: the caller's promise: `count` channels lie there, a whole register's being its lanes by `by_channels`.
        unsafe {
            let at = from.as_ptr().add(pixel + self.first);
            T::load(simd, at, if WHOLE { T::lanes::<S>() } else { self.count })
        }
    }

    /// Writes the channels of the pixel that begins at `pixel`.
    ///
    /// # Safety
    /// They lie inside the slice.
    #[inline(always)]
    pub(in crate::ops) unsafe fn store<T: Real, S: Simd, const WHOLE: bool>(
        self,
        simd: S,
        y: &mut [impl Place<T>],
        pixel: usize,
        values: T::Of<S>,
    ) {
        debug_assert!(pixel + self.first + self.count <= y.len());
        // SAFETY: the caller's promise: `count` channels lie there, a whole register's being its lanes by `by_channels`.
        unsafe {
            let at = y.as_mut_ptr().add(pixel + self.first).cast::<T>();
            T::store(simd, at, if WHOLE { T::lanes::<S>() } else { self.count }, values)
        }
    }

    /// The channels of the row that begins at `row`.
    #[inline(always)]
    pub(in crate::ops) fn of<T: Real, S: Simd, const WHOLE: bool>(self, simd: S, from: &[T], row: usize) -> T::Of<S> {
        assert!(row + self.first + self.count <= from.len(), "channels lie inside their row");
        // SAFETY: the assertion.
        unsafe { self.load::<T, S, WHOLE>(simd, from, row) }
    }

    /// Writes the channels of the row that begins at `row`.
    #[inline(always)]
    pub(in crate::ops) fn put<T: Real, S: Simd, const WHOLE: bool>(
        self,
        simd: S,
        to: &mut [T],
        row: usize,
        x: T::Of<S>,
    ) {
        assert!(row + self.first + self.count <= to.len(), "channels lie inside their row");
        // SAFETY: the assertion.
        unsafe { self.store::<T, S, WHOLE>(simd, to, row, x) }
    }

    /// Adds to the channels of the row that begins at `row`.
    #[inline(always)]
    pub(in crate::ops) fn add_to<T: Real, S: Simd, const WHOLE: bool>(
        self,
        simd: S,
        sums: &mut [T],
        row: usize,
        x: T::Of<S>,
    ) {
        let sum = T::plus(simd, self.of::<T, S, WHOLE>(simd, sums, row), x);
        self.put::<T, S, WHOLE>(simd, sums, row, sum);
    }
}
