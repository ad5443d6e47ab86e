//! The gradients of a filter's taps.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row
#![allow(clippy::needless_range_loop)] // rows and columns are counted together

use super::neighbours::Neighbours;
use super::size::{MapSize, Meeting};
use crate::ops::cpu::Real;
use crate::ops::cpu::channels::{Channels, by_channels};
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

impl MapSize {
    /// `dtaps[i k + j, c] = Σ dy u` over the pairs of places that the tap joins.
    pub(in crate::ops) fn tap_gradients<T: Real>(&self, u: &[T], dy: &[T], dtaps: &mut [T]) {
        self.by_bands(self.taps_len(), dtaps, |rows, sums| {
            Arch::new().dispatch(AddTapGradients { u, dy, map: *self, rows, sums });
        });
    }
}

/// `sums += Σ dy u` over the pairs of places that each tap joins, for the outputs of some rows.
pub(super) struct AddTapGradients<'a, T> {
    pub(super) u: &'a [T],
    pub(super) dy: &'a [T],
    pub(super) map: MapSize,
    pub(super) rows: Range<usize>,
    pub(super) sums: &'a mut [T],
}

impl<T: Real> WithSimd for AddTapGradients<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let map = self.map;
        let fits = self.u.len() == map.len() && self.dy.len() == map.len() && self.sums.len() == map.taps_len();
        assert!(self.rows.end <= map.h && fits, "rows of {map:?}");
        for tile in map.tiles() {
            for row in self.rows.clone() {
                let meeting = map.meeting(row);
                by_channels!(T, S, map.r, |channels, WHOLE| {
                    match (map.kernel_size, meeting.count) {
                        (3, 3) => self.row_of_three::<S, WHOLE, 3>(simd, row, meeting, &tile, channels),
                        (3, 2) => self.row_of_three::<S, WHOLE, 2>(simd, row, meeting, &tile, channels),
                        (3, 1) => self.row_of_three::<S, WHOLE, 1>(simd, row, meeting, &tile, channels),
                        _ => self.row_of_any::<S, WHOLE>(simd, row, meeting, &tile, channels),
                    }
                });
            }
        }
    }
}

impl<T: Real> AddTapGradients<'_, T> {
    /// What one row of outputs gives to the taps of a 3 x 3 filter.
    #[inline(always)]
    fn row_of_three<S: Simd, const WHOLE: bool, const ROWS: usize>(
        &mut self,
        simd: S,
        row: usize,
        meeting: Meeting,
        tile: &Range<usize>,
        channels: Channels,
    ) {
        let MapSize { w, r, .. } = self.map;
        let fits = channels.first + channels.count <= r && meeting.tap + ROWS <= 3;
        assert!(tile.start < tile.end && tile.end <= w && fits, "a row of {:?}", self.map);
        let dy = &self.dy[row * w * r..][..w * r];
        let mut near = Neighbours::<T, S, WHOLE, ROWS>::new(simd, self.u, self.map, meeting, channels);
        let mut sum = [[T::splat(simd, T::zero()); ROWS]; 3];
        // SAFETY: x, x + 1 and w - 1 are pixels of a row of w.
        unsafe {
            near.start(tile.start, r);
            for x in tile.start..tile.end.min(w - 1) {
                near.advance((x + 1) * r);
                near.correlate(channels.load::<T, S, WHOLE>(simd, dy, x * r), &mut sum);
            }
            if tile.end == w {
                near.end();
                near.correlate(channels.load::<T, S, WHOLE>(simd, dy, (w - 1) * r), &mut sum);
            }
        }
        for j in 0..3 {
            for i in 0..ROWS {
                channels.add_to::<T, S, WHOLE>(simd, self.sums, ((meeting.tap + i) * 3 + j) * r, sum[j][i]);
            }
        }
    }

    /// What one row of outputs gives to the taps of a filter of any size.
    #[inline(always)]
    fn row_of_any<S: Simd, const WHOLE: bool>(
        &mut self,
        simd: S,
        row: usize,
        meeting: Meeting,
        tile: &Range<usize>,
        channels: Channels,
    ) {
        let MapSize { w, r, kernel_size, .. } = self.map;
        let reach = kernel_size / 2;
        assert!(tile.end <= w && channels.first + channels.count <= r, "a row of {:?}", self.map);
        let dy = &self.dy[row * w * r..][..w * r];
        for i in 0..meeting.count {
            for j in 0..kernel_size {
                let mut sum = T::splat(simd, T::zero());
                for x in tile.start.max(reach.saturating_sub(j))..tile.end.min((w + reach).saturating_sub(j)) {
                    let from = ((meeting.first + i) * w + x + j - reach) * r;
                    // SAFETY: `meeting` and the bounds of x keep to the map, k being odd as `MapSize::new` has it, and
                    // `with_simd` has checked that u and dy are such maps.
                    unsafe {
                        let u = channels.load::<T, S, WHOLE>(simd, self.u, from);
                        sum = T::multiply_add(simd, u, channels.load::<T, S, WHOLE>(simd, dy, x * r), sum);
                    }
                }
                channels.add_to::<T, S, WHOLE>(simd, self.sums, ((meeting.tap + i) * kernel_size + j) * r, sum);
            }
        }
    }
}
