//! One map under its depth-wise filter: pooling, the convolution and its gradients, on slices.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row; bands write their own parts of a map
#![allow(clippy::needless_range_loop)] // rows and columns are counted together

use crate::ops::cpu::channels::{Channels, by_channels};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Parts, Real};
use candle_core::Result;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The sizes of maps `[h, w, r]` and of their filters' taps `[k*k, r]`, none of them 0 and k odd.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct MapSize {
    h: usize,
    w: usize,
    r: usize,
    kernel_size: usize,
}

/// Which way a tap moves values.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// From maps to outputs.
    Forward,
    /// From the outputs' gradients to the maps'.
    Backward,
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

    /// `mean = Σ u / (h w)`, for each channel.
    pub(in crate::ops) fn pool<T: Real>(&self, u: &[T], mean: &mut [T]) {
        let sums = self.by_bands(self.r, mean, |rows, sums| {
            Arch::new().dispatch(AddPixels { u: self.rows(u, &rows), map: *self, sums });
        });
        let count = T::of((self.h * self.w) as f64);
        sums.iter_mut().for_each(|sum| *sum /= count);
    }

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

    /// `dtaps[i k + j, c] = Σ dy u` over the pairs of places that the tap joins.
    pub(in crate::ops) fn tap_gradients<T: Real>(&self, u: &[T], dy: &[T], dtaps: &mut [T]) {
        self.by_bands(self.taps_len(), dtaps, |rows, sums| {
            Arch::new().dispatch(AddTapGradients { u, dy, map: *self, rows, sums });
        });
    }

    /// A map's rows as they lie in memory.
    fn rows<'a, T>(&self, u: &'a [T], rows: &Range<usize>) -> &'a [T] {
        &u[rows.start * self.w * self.r..rows.end * self.w * self.r]
    }

    fn band_rows(&self) -> usize {
        (BAND / (self.w * self.r).max(1)).max(1)
    }

    fn bands(&self) -> impl IndexedParallelIterator<Item = Range<usize>> {
        let (h, rows) = (self.h, self.band_rows());
        (0..h.div_ceil(rows)).into_par_iter().map(move |i| i * rows..h.min((i + 1) * rows))
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

    /// Sums over bands of rows, joined in order: the same whatever the threads.
    fn by_bands<'a, T: Real>(
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

/// `sums += Σ u` over pixels, row by row.
struct AddPixels<'a, T> {
    u: &'a [T],
    map: MapSize,
    sums: &'a mut [T],
}

/// Registers of a pixel that are summed side by side: one sum after another would wait for each addition.
const SIDE: usize = 4;

impl<T: Real> WithSimd for AddPixels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { u, map: MapSize { w, r, .. }, sums } = self;
        let side = SIDE * T::lanes::<S>();
        for row in u.chunks_exact((w * r).max(1)) {
            if r.is_multiple_of(side) {
                for first in (0..r).step_by(side) {
                    let channels: [Channels; SIDE] = side_by_side(first, T::lanes::<S>());
                    let mut sum = [T::splat(simd, T::zero()); SIDE];
                    for pixel in row.chunks_exact(r) {
                        for i in 0..SIDE {
                            // SAFETY: the channels end with r, and `chunks_exact` gives pixels of r.
                            sum[i] = T::plus(simd, sum[i], unsafe { channels[i].load::<T, S, true>(simd, pixel, 0) });
                        }
                    }
                    for i in 0..SIDE {
                        channels[i].add_to::<T, S, true>(simd, sums, 0, sum[i]);
                    }
                }
            } else {
                by_channels!(T, S, r, |channels, WHOLE| {
                    let mut sum = T::splat(simd, T::zero());
                    for pixel in row.chunks_exact(r) {
                        // SAFETY: the channels end with r, and `chunks_exact` gives pixels of r.
                        sum = T::plus(simd, sum, unsafe { channels.load::<T, S, WHOLE>(simd, pixel, 0) });
                    }
                    channels.add_to::<T, S, WHOLE>(simd, sums, 0, sum);
                });
            }
        }
    }
}

#[inline(always)]
fn side_by_side(first: usize, count: usize) -> [Channels; SIDE] {
    [0, 1, 2, 3].map(|i| Channels { first: first + i * count, count })
}

/// The rows of a map and of its taps that meet in one output row.
#[derive(Clone, Copy)]
struct Meeting {
    /// The first of the map's rows.
    first: usize,
    /// The first of the taps' rows.
    tap: usize,
    count: usize,
}

impl MapSize {
    #[inline(always)]
    fn meeting(&self, y: usize) -> Meeting {
        let reach = self.kernel_size / 2;
        let (first, end) = (y.saturating_sub(reach), self.h.min(y + reach + 1));
        Meeting { first, tap: first + reach - y, count: end - first }
    }

    /// Columns of pixels, narrow enough that a filter's rows of them stay in the nearest cache from one output row to the next.
    #[inline(always)]
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let (w, width) = (self.w, (TILE / self.r.max(1)).max(LEAST_TILE));
        (0..w.div_ceil(width)).map(move |i| i * width..w.min((i + 1) * width))
    }

    /// Taps' columns that stay inside the map at x.
    #[inline(always)]
    fn columns(&self, x: usize) -> Range<usize> {
        let reach = self.kernel_size / 2;
        reach.saturating_sub(x)..self.kernel_size.min(self.w + reach - x)
    }
}

/// What a convolution reads: maps, taps, and what it adds to every output.
#[derive(Clone, Copy)]
struct Reads<'a, T> {
    u: &'a [T],
    taps: &'a [T],
    start: Option<&'a [T]>,
    map: MapSize,
    direction: Direction,
}

/// Rows of a map's convolution; `y` holds those rows alone.
struct ConvolveRows<'a, T> {
    reads: Reads<'a, T>,
    rows: Range<usize>,
    y: &'a mut [MaybeUninit<T>],
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

/// Channels of the rows that meet in an output row, at three neighbouring pixels: they move along the row together.
struct Neighbours<'a, T: Real, S: Simd, const WHOLE: bool, const ROWS: usize> {
    simd: S,
    rows: [&'a [T]; ROWS],
    channels: Channels,
    /// Before, at and after the pixel.
    columns: [[T::Of<S>; ROWS]; 3],
}

impl<'a, T: Real, S: Simd, const WHOLE: bool, const ROWS: usize> Neighbours<'a, T, S, WHOLE, ROWS> {
    #[inline(always)]
    fn new(simd: S, u: &'a [T], map: MapSize, meeting: Meeting, channels: Channels) -> Self {
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
    unsafe fn start(&mut self, x: usize, r: usize) {
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
    unsafe fn advance(&mut self, next: usize) {
        self.columns[0] = self.columns[1];
        self.columns[1] = self.columns[2];
        for i in 0..ROWS {
            // SAFETY: the caller's promise; `by_channels` ends with r.
            self.columns[2][i] = unsafe { self.channels.load::<T, S, WHOLE>(self.simd, self.rows[i], next) };
        }
    }

    /// Moves on to the last pixel; zeros come after it.
    #[inline(always)]
    fn end(&mut self) {
        self.columns[0] = self.columns[1];
        self.columns[1] = self.columns[2];
        self.columns[2] = [T::splat(self.simd, T::zero()); ROWS];
    }

    /// `start + Σ u taps`.
    #[inline(always)]
    fn weighted(&self, taps: &[[T::Of<S>; ROWS]; 3], start: T::Of<S>) -> T::Of<S> {
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
    fn correlate(&self, dy: T::Of<S>, sum: &mut [[T::Of<S>; ROWS]; 3]) {
        for j in 0..3 {
            for i in 0..ROWS {
                sum[j][i] = T::multiply_add(self.simd, self.columns[j][i], dy, sum[j][i]);
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

/// `sums += Σ dy u` over the pairs of places that each tap joins, for the outputs of some rows.
struct AddTapGradients<'a, T> {
    u: &'a [T],
    dy: &'a [T],
    map: MapSize,
    rows: Range<usize>,
    sums: &'a mut [T],
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

#[cfg(test)]
mod tests {
    use super::*;

    /// `len` values that `write` writes over.
    fn made(len: usize, write: impl FnOnce(&mut [MaybeUninit<f64>])) -> Vec<f64> {
        let mut y = vec![MaybeUninit::new(f64::NAN); len];
        write(&mut y);
        // SAFETY: made of values.
        y.into_iter().map(|y| unsafe { y.assume_init() }).collect()
    }

    #[test]
    fn bands_of_a_large_map_give_what_the_whole_gives() -> Result<()> {
        let map = MapSize::new((150, 33), 27, 3)?;
        assert!(map.h > map.band_rows());
        let values = |n: usize, step: f64| -> Vec<f64> { (0..n).map(|i| (i as f64 * step).sin()).collect() };
        let (u, dy, taps) = (values(map.len(), 0.37), values(map.len(), 0.11), values(map.taps_len(), 0.7));
        let close = |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-10);
        let reads = Reads { u: &u, taps: &taps, start: None, map, direction: Direction::Forward };
        let whole = |y: &mut [_]| Arch::new().dispatch(ConvolveRows { reads, rows: 0..map.h, y });
        assert_eq!(made(map.len(), |y| map.convolve(&u, &taps, y)), made(map.len(), whole));
        let (mut got, mut want) = (vec![1.0; map.taps_len()], vec![0.0; map.taps_len()]);
        map.tap_gradients(&u, &dy, &mut got);
        Arch::new().dispatch(AddTapGradients { u: &u, dy: &dy, map, rows: 0..map.h, sums: &mut want });
        assert!(close(&got, &want));
        let (mut got, mut want) = (vec![1.0; map.r], vec![0.0; map.r]);
        map.pool(&u, &mut got);
        u.chunks(map.r).for_each(|u| want.iter_mut().zip(u).for_each(|(sum, u)| *sum += u));
        want.iter_mut().for_each(|sum| *sum /= (map.h * map.w) as f64);
        assert!(close(&got, &want));
        Ok(())
    }
}
