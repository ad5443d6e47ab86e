//! The sizes of maps and filters, and how their rows are shared out.

use crate::ops::cpu::Real;
use crate::ops::cpu::simd;
use candle_core::Result;
use rayon::prelude::*;
use std::ops::Range;

/// The sizes of maps `[h, w, r]` and of their filters' taps `[k*k, r]`, none of them 0 and k odd.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct MapSize {
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) r: usize,
    pub(super) kernel_size: usize,
}

/// Values of a band: a map larger than this is worked on by several threads.
const BAND: usize = 1 << 16;
/// Values of a row of a tile, and the fewest of its pixels: more than that are read again beside it.
const TILE: usize = 1 << 10;
const LEAST_TILE: usize = 8;

impl MapSize {
    /// The only way to one: what loads without checks of their own take for granted holds of each.
    pub(in crate::ops) fn new((h, w): (usize, usize), r: usize, kernel_size: usize) -> Result<Self> {
        if h == 0 || w == 0 || r == 0 || kernel_size.is_multiple_of(2) {
            candle_core::bail!(
                "expected maps of [h, w, r] and an odd kernel size, got {:?} and {kernel_size}",
                [h, w, r]
            )
        }
        Ok(Self { h, w, r, kernel_size })
    }

    /// Places of a map.
    pub(in crate::ops) fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// r.
    pub(in crate::ops) fn channels(&self) -> usize {
        self.r
    }

    /// Values of a map.
    pub(in crate::ops) fn len(&self) -> usize {
        self.pixels() * self.r
    }

    /// Values of a map's taps.
    pub(in crate::ops) fn taps_len(&self) -> usize {
        self.kernel_size * self.kernel_size * self.r
    }

    /// A map's rows as they lie in memory.
    pub(super) fn rows<'a, T>(&self, u: &'a [T], rows: &Range<usize>) -> &'a [T] {
        &u[rows.start * self.w * self.r..rows.end * self.w * self.r]
    }

    pub(super) fn band_rows(&self) -> usize {
        (BAND / (self.w * self.r).max(1)).max(1)
    }

    pub(super) fn bands(&self) -> impl IndexedParallelIterator<Item = Range<usize>> {
        let (h, rows) = (self.h, self.band_rows());
        (0..h.div_ceil(rows)).into_par_iter().map(move |i| i * rows..h.min((i + 1) * rows))
    }

    /// Sums over bands of rows, joined in order: the same whatever the threads.
    pub(super) fn by_bands<'a, T: Real>(
        &self,
        width: usize,
        total: &'a mut [T],
        add: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) -> &'a mut [T] {
        total.fill(T::zero());
        if self.h <= self.band_rows() {
            add(0..self.h, total);
            return total;
        }
        let partial = self.bands().map(|rows| {
            let mut sums = vec![T::zero(); width];
            add(rows, &mut sums);
            sums
        });
        partial.collect::<Vec<_>>().iter().for_each(|sums| simd::add(total, sums));
        total
    }
}

/// The rows of a map and of its taps that meet in one output row.
#[derive(Clone, Copy)]
pub(super) struct Meeting {
    /// The first of the map's rows.
    pub(super) first: usize,
    /// The first of the taps' rows.
    pub(super) tap: usize,
    pub(super) count: usize,
}

impl MapSize {
    #[inline(always)]
    pub(super) fn meeting(&self, y: usize) -> Meeting {
        let reach = self.kernel_size / 2;
        let (first, end) = (y.saturating_sub(reach), self.h.min(y + reach + 1));
        Meeting { first, tap: first + reach - y, count: end - first }
    }

    /// Columns of pixels, narrow enough that a filter's rows of them stay in the nearest cache from one output row to the next.
    #[inline(always)]
    pub(super) fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let (w, width) = (self.w, (TILE / self.r.max(1)).max(LEAST_TILE));
        (0..w.div_ceil(width)).map(move |i| i * width..w.min((i + 1) * width))
    }

    /// Taps' columns that stay inside the map at x.
    #[inline(always)]
    pub(super) fn columns(&self, x: usize) -> Range<usize> {
        let reach = self.kernel_size / 2;
        reach.saturating_sub(x)..self.kernel_size.min(self.w + reach - x)
    }
}
