//! The pixels of a map that a 3 x 3 filter's taps meet, as they move along a row.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row
#![allow(clippy::needless_range_loop)] // rows and columns are counted together

use super::size::{MapSize, Meeting};
use crate::ops::cpu::Real;
use crate::ops::cpu::channels::Channels;
use pulp::Simd;

/// Channels of the rows that meet in an output row, at three neighbouring pixels: they move along the row together.
pub(super) struct Neighbours<'a, T: Real, S: Simd, const WHOLE: bool, const ROWS: usize> {
    simd: S,
    rows: [&'a [T]; ROWS],
    channels: Channels,
    /// Before, at and after the pixel.
    columns: [[T::Of<S>; ROWS]; 3],
}

impl<'a, T: Real, S: Simd, const WHOLE: bool, const ROWS: usize> Neighbours<'a, T, S, WHOLE, ROWS> {
    #[inline(always)]
    pub(super) fn new(simd: S, u: &'a [T], map: MapSize, meeting: Meeting, channels: Channels) -> Self {
        let (width, mut rows) = (map.w * map.r, [&u[..0]; ROWS]);
        for i in 0..ROWS {
            rows[i] = &u[(meeting.first + i) * width..][..width];
        }
        Self { simd, rows, channels, columns: [[T::splat(simd, T::zero()); ROWS]; 3] }
    }

    /// Moves to a row's pixel x.
    ///
    /// # Safety
    /// There is such a pixel.
    #[inline(always)]
    pub(super) unsafe fn start(&mut self, x: usize, r: usize) {
        // SAFETY: the caller's promise; the pixel before x is one as well.
        unsafe {
            if x > 0 {
                self.advance((x - 1) * r);
            }
            self.advance(x * r);
        }
    }

    /// Moves on by a pixel; the one after it begins at `next`.
    ///
    /// # Safety
    /// That is a pixel of the row.
    #[inline(always)]
    pub(super) unsafe fn advance(&mut self, next: usize) {
        self.columns[0] = self.columns[1];
        self.columns[1] = self.columns[2];
        for i in 0..ROWS {
            // SAFETY: the caller's promise; `by_channels` ends with r.
            self.columns[2][i] = unsafe { self.channels.load::<T, S, WHOLE>(self.simd, self.rows[i], next) };
        }
    }

    /// Moves on to the last pixel; zeros come after it.
    #[inline(always)]
    pub(super) fn end(&mut self) {
        self.columns[0] = self.columns[1];
        self.columns[1] = self.columns[2];
        self.columns[2] = [T::splat(self.simd, T::zero()); ROWS];
    }

    /// `start + Σ u taps`.
    #[inline(always)]
    pub(super) fn weighted(&self, taps: &[[T::Of<S>; ROWS]; 3], start: T::Of<S>) -> T::Of<S> {
        let mut sum = start;
        for j in 0..3 {
            for i in 0..ROWS {
                sum = T::multiply_add(self.simd, self.columns[j][i], taps[j][i], sum);
            }
        }
        sum
    }

    /// `sum += dy u`.
    #[inline(always)]
    pub(super) fn correlate(&self, dy: T::Of<S>, sum: &mut [[T::Of<S>; ROWS]; 3]) {
        for j in 0..3 {
            for i in 0..ROWS {
                sum[j][i] = T::multiply_add(self.simd, self.columns[j][i], dy, sum[j][i]);
            }
        }
    }
}
