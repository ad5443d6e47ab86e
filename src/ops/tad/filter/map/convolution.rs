//! The convolution of a map, and what goes back through it to the map.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row; bands write their own parts of a map
#![allow(clippy::needless_range_loop)] // rows and columns are counted together

use super::neighbours::Neighbours;
use super::size::{MapSize, Meeting};
use crate::ops::cpu::channels::{Channels, by_channels};
use crate::ops::cpu::{Parts, Real};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Which way a tap moves values.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Direction {
    /// From maps to outputs.
    Forward,
    /// From the outputs' gradients to the maps'.
    Backward,
}

impl MapSize {
    /// `y[y, x, c] = Σ_ij u[y + i - k/2, x + j - k/2, c] taps[i k + j, c]`, zero beyond the map; every value of y is written.
    pub(in crate::ops) fn convolve<T: Real>(&self, u: &[T], taps: &[T], y: &mut [MaybeUninit<T>]) {
        self.moved(u, taps, None, Direction::Forward, y);
    }

    /// `du[p, c] = start[c] + Σ dy taps` over the outputs that read place p, every value written; `start` is 0 where there
    /// is none.
    pub(in crate::ops) fn convolve_backward<T: Real>(
        &self,
        dy: &[T],
        taps: &[T],
        start: Option<&[T]>,
        du: &mut [MaybeUninit<T>],
    ) {
        self.moved(dy, taps, start, Direction::Backward, du);
    }

    fn moved<T: Real>(&self, u: &[T], taps: &[T], start: Option<&[T]>, direction: Direction, y: &mut [MaybeUninit<T>]) {
        assert!(u.len() == self.len() && y.len() == self.len() && taps.len() == self.taps_len(), "a map of {self:?}");
        let reads = Reads { u, taps, start, map: *self, direction };
        if self.h <= self.band_rows() {
            return Arch::new().dispatch(ConvolveRows { reads, rows: 0..self.h, y });
        }
        let parts = Parts::of(y);
        self.bands().for_each(|rows| {
            // SAFETY: `bands` has each row in one band, so that no other part has these places.
            let y = unsafe { parts.at(rows.start * self.w * self.r, rows.len() * self.w * self.r) };
            Arch::new().dispatch(ConvolveRows { reads, rows, y });
        });
    }
}

/// What a convolution reads: maps, taps, and what it adds to every output.
#[derive(Clone, Copy)]
pub(super) struct Reads<'a, T> {
    pub(super) u: &'a [T],
    pub(super) taps: &'a [T],
    pub(super) start: Option<&'a [T]>,
    pub(super) map: MapSize,
    pub(super) direction: Direction,
}

/// Rows of a map's convolution; `y` holds those rows alone.
pub(super) struct ConvolveRows<'a, T> {
    pub(super) reads: Reads<'a, T>,
    pub(super) rows: Range<usize>,
    pub(super) y: &'a mut [MaybeUninit<T>],
}

impl<T: Real> WithSimd for ConvolveRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { reads, rows, y } = self;
        let Reads { u, taps, start, map, .. } = reads;
        assert!(rows.end <= map.h && u.len() == map.len() && taps.len() == map.taps_len(), "rows of {map:?}");
        assert!(start.is_none_or(|start| start.len() == map.r), "a start for {map:?}");
        for tile in map.tiles() {
            for (row, y) in rows.clone().zip(y.chunks_exact_mut((map.w * map.r).max(1))) {
                let meeting = map.meeting(row);
                by_channels!(T, S, map.r, |channels, WHOLE| {
                    match (map.kernel_size, meeting.count) {
                        (3, 3) => reads.row_of_three::<S, WHOLE, 3>(simd, meeting, &tile, channels, y),
                        (3, 2) => reads.row_of_three::<S, WHOLE, 2>(simd, meeting, &tile, channels, y),
                        (3, 1) => reads.row_of_three::<S, WHOLE, 1>(simd, meeting, &tile, channels, y),
                        _ => reads.row_of_any::<S, WHOLE>(simd, meeting, &tile, channels, y),
                    }
                });
            }
        }
    }
}

impl<T: Real> Reads<'_, T> {
    /// Where a tap's channels begin.
    #[inline(always)]
    fn tap(&self, i: usize, j: usize) -> usize {
        let MapSize { kernel_size, r, .. } = self.map;
        let tap = i * kernel_size + j;
        r * if self.direction == Direction::Forward { tap } else { kernel_size * kernel_size - 1 - tap }
    }

    #[inline(always)]
    fn start<S: Simd, const WHOLE: bool>(&self, simd: S, channels: Channels) -> T::Of<S> {
        match self.start {
            // SAFETY: `with_simd` has checked that the start is r long, and `by_channels` ends with r.
            Some(start) => unsafe { channels.load::<T, S, WHOLE>(simd, start, 0) },
            None => T::splat(simd, T::zero()),
        }
    }

    /// One output row of a 3 x 3 filter, `ROWS` of whose rows lie inside the map: its taps stay in registers.
    #[inline(always)]
    fn row_of_three<S: Simd, const WHOLE: bool, const ROWS: usize>(
        &self,
        simd: S,
        meeting: Meeting,
        tile: &Range<usize>,
        channels: Channels,
        y: &mut [MaybeUninit<T>],
    ) {
        let MapSize { w, r, .. } = self.map;
        let fits = channels.first + channels.count <= r && meeting.tap + ROWS <= 3;
        assert!(tile.start < tile.end && tile.end <= w && fits && y.len() == w * r, "a row of {:?}", self.map);
        let mut taps = [[T::splat(simd, T::zero()); ROWS]; 3];
        for j in 0..3 {
            for i in 0..ROWS {
                // SAFETY: by the assertion one of nine taps, of which `with_simd` has checked that all are there.
                taps[j][i] = unsafe { channels.load::<T, S, WHOLE>(simd, self.taps, self.tap(meeting.tap + i, j)) };
            }
        }
        let start = self.start::<S, WHOLE>(simd, channels);
        let mut near = Neighbours::<T, S, WHOLE, ROWS>::new(simd, self.u, self.map, meeting, channels);
        // SAFETY: x, x + 1 and w - 1 are pixels of a row of w, by the assertion those of y as well.
        unsafe {
            near.start(tile.start, r);
            for x in tile.start..tile.end.min(w - 1) {
                near.advance((x + 1) * r);
                channels.store::<T, S, WHOLE>(simd, y, x * r, near.weighted(&taps, start));
            }
            if tile.end == w {
                near.end();
                channels.store::<T, S, WHOLE>(simd, y, (w - 1) * r, near.weighted(&taps, start));
            }
        }
    }

    /// One output row of a filter of any size.
    #[inline(always)]
    fn row_of_any<S: Simd, const WHOLE: bool>(
        &self,
        simd: S,
        meeting: Meeting,
        tile: &Range<usize>,
        channels: Channels,
        y: &mut [MaybeUninit<T>],
    ) {
        let MapSize { w, r, kernel_size, .. } = self.map;
        assert!(tile.end <= w && channels.first + channels.count <= r && y.len() == w * r, "a row of {:?}", self.map);
        for x in tile.clone() {
            let (columns, mut sum) = (self.map.columns(x), self.start::<S, WHOLE>(simd, channels));
            for i in 0..meeting.count {
                for j in columns.clone() {
                    let from = ((meeting.first + i) * w + x + j - kernel_size / 2) * r;
                    // SAFETY: `meeting` and `columns` keep to the map and to its taps, which are k x k with k odd as `MapSize::new` has it;
                    // `with_simd` has checked that both are there.
                    unsafe {
                        let u = channels.load::<T, S, WHOLE>(simd, self.u, from);
                        let tap = channels.load::<T, S, WHOLE>(simd, self.taps, self.tap(meeting.tap + i, j));
                        sum = T::multiply_add(simd, u, tap, sum);
                    }
                }
            }
            // SAFETY: x is below w, and y by the assertion a row of w pixels.
            unsafe { channels.store::<T, S, WHOLE>(simd, y, x * r, sum) };
        }
    }
}
