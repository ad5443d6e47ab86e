//! One map under its depth-wise filter: pooling, the convolution and its gradients, on slices.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row; bands write their own parts of a map

use super::cpu::{Parts, Real};
use super::simd::{self, vectorised_fn};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The sizes of maps `[h, w, r]` and of their filters' taps `[k*k, r]`, k odd.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSize {
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) r: usize,
    pub(super) kernel: usize,
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
const BAND: usize = 1 << 15;

impl MapSize {
    /// Values of a map.
    pub(super) fn len(&self) -> usize {
        self.h * self.w * self.r
    }

    /// Values of a map's taps.
    pub(super) fn taps_len(&self) -> usize {
        self.kernel * self.kernel * self.r
    }

    /// `mean = Σ u / (h w)`, for each channel.
    pub(super) fn pool<T: Real>(&self, u: &[T], mean: &mut [T]) {
        let sums = self.by_bands(self.r, mean, |rows, sums| add_pixels(self.rows(u, &rows), *self, sums));
        let count = T::of((self.h * self.w) as f64);
        sums.iter_mut().for_each(|sum| *sum /= count);
    }

    /// `y[y, x, c] = Σ_ij u[y + i - k/2, x + j - k/2, c] taps[i k + j, c]`, zero beyond the map.
    pub(super) fn convolve<T: Real>(&self, u: &[T], taps: &[T], y: &mut [T]) {
        self.convolve_fresh(u, taps, written(y));
    }

    /// As [`MapSize::convolve`] into fresh memory; every value of `y` is written.
    pub(super) fn convolve_fresh<T: Real>(&self, u: &[T], taps: &[T], y: &mut [MaybeUninit<T>]) {
        self.moved(u, taps, None, Direction::Forward, y);
    }

    /// `du[p, c] = start[c] + Σ dy taps` over the outputs that read place p, into fresh memory; `start` is 0 where there is none.
    pub(super) fn convolve_backward<T: Real>(
        &self,
        dy: &[T],
        taps: &[T],
        start: Option<&[T]>,
        du: &mut [MaybeUninit<T>],
    ) {
        self.moved(dy, taps, start, Direction::Backward, du);
    }

    /// `dtaps[i k + j, c] = Σ dy u` over the pairs of places that the tap joins.
    pub(super) fn tap_gradients<T: Real>(&self, u: &[T], dy: &[T], dtaps: &mut [T]) {
        self.by_bands(self.taps_len(), dtaps, |rows, sums| add_tap_gradients(u, dy, *self, rows, sums));
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

    fn moved<T: Real>(
        &self,
        u: &[T],
        taps: &[T],
        start: Option<&[T]>,
        direction: Direction,
        y: &mut [MaybeUninit<T>],
    ) {
        assert!(u.len() == self.len() && y.len() == self.len() && taps.len() == self.taps_len(), "a map of {self:?}");
        let reads = Reads { u, taps, start, map: *self, direction };
        if self.h <= self.band_rows() {
            return convolve_rows(reads, 0..self.h, y);
        }
        let parts = Parts::of(y);
        self.bands().for_each(|rows| {
            // SAFETY: each row is in one band.
            let y = unsafe { parts.at(rows.start * self.w * self.r, rows.len() * self.w * self.r) };
            convolve_rows(reads, rows, y);
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

/// Written memory as what may be written over.
pub(super) fn written<T: Real>(y: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the same layout, and this file writes nothing but values.
    unsafe { &mut *(std::ptr::from_mut(y) as *mut [MaybeUninit<T>]) }
}

/// `L` channels from `at`.
///
/// # Safety
/// They lie inside the slice.
#[inline(always)]
unsafe fn load<T: Real, const L: usize>(from: &[T], at: usize) -> [T; L] {
    debug_assert!(at + L <= from.len());
    // SAFETY: the caller's promise.
    unsafe { from.as_ptr().add(at).cast::<[T; L]>().read_unaligned() }
}

#[inline(always)]
fn add<T: Real, const L: usize>(sum: &mut [T; L], x: [T; L]) {
    for l in 0..L {
        sum[l] += x[l];
    }
}

/// `sum += x y`, rounded once where the processor can.
#[inline(always)]
fn add_product<T: Real, const L: usize, const FUSED: bool>(sum: &mut [T; L], x: [T; L], y: [T; L]) {
    for l in 0..L {
        sum[l] = if FUSED { x[l].mul_add(y[l], sum[l]) } else { sum[l] + x[l] * y[l] };
    }
}

/// `sums[at..] += x`.
#[inline(always)]
fn add_to<T: Real, const L: usize>(sums: &mut [T], at: usize, x: [T; L]) {
    if let Some(sums) = sums[at..].first_chunk_mut::<L>() {
        add(sums, x);
    }
}

/// Writes `L` channels from `at`.
///
/// # Safety
/// They lie inside the slice.
#[inline(always)]
unsafe fn store<T: Real, const L: usize>(y: &mut [MaybeUninit<T>], at: usize, values: [T; L]) {
    debug_assert!(at + L <= y.len());
    // SAFETY: the caller's promise.
    unsafe { y.as_mut_ptr().add(at).cast::<[T; L]>().write_unaligned(values) }
}

/// Calls a function with a constant number of channels for groups of channels that cover all of them.
macro_rules! by_channels {
    ($r:expr, [$($lanes:literal),*], |$c:ident, $l:ident| $call:expr) => {{
        let mut $c = 0;
        $(while $c + $lanes <= $r {
            const $l: usize = $lanes;
            $call;
            $c += $lanes;
        })*
    }};
}

vectorised_fn! {
    /// `sums += Σ u` over pixels, row by row.
    fn add_pixels<T: Real>(u: &[T], map: MapSize, sums: &mut [T]) {
        for row in u.chunks_exact((map.w * map.r).max(1)) {
            by_channels!(map.r, [64, 16, 1], |c, L| {
                let mut sum = [T::zero(); L];
                for pixel in row.chunks_exact(map.r) {
                    // SAFETY: `c + L` is at most r, the length of a pixel.
                    add(&mut sum, unsafe { load::<T, L>(pixel, c) });
                }
                add_to(sums, c, sum);
            });
        }
    }
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
        let reach = self.kernel / 2;
        let (first, end) = (y.saturating_sub(reach), self.h.min(y + reach + 1));
        Meeting { first, tap: first + reach - y, count: end - first }
    }

    /// Taps' columns that stay inside the map at x.
    #[inline(always)]
    fn columns(&self, x: usize) -> Range<usize> {
        let reach = self.kernel / 2;
        reach.saturating_sub(x)..self.kernel.min(self.w + reach - x)
    }
}

/// Maps, taps and what is added to every output: what one row of a convolution reads.
#[derive(Clone, Copy)]
struct Reads<'a, T> {
    u: &'a [T],
    taps: &'a [T],
    start: Option<&'a [T]>,
    map: MapSize,
    direction: Direction,
}

impl<T> Reads<'_, T> {
    /// Where a tap's channels begin.
    #[inline(always)]
    fn tap(&self, i: usize, j: usize) -> usize {
        let MapSize { kernel, r, .. } = self.map;
        let tap = i * kernel + j;
        r * if self.direction == Direction::Forward { tap } else { kernel * kernel - 1 - tap }
    }
}

vectorised_fn! {
    /// Rows of a map's convolution; `y` holds those rows alone.
    fn convolve_rows<T: Real>(reads: Reads<'_, T>, rows: Range<usize>, y: &mut [MaybeUninit<T>]) {
        if simd::fuses() { rows_of::<T, true>(reads, rows, y) } else { rows_of::<T, false>(reads, rows, y) }
    }
}

#[inline(always)]
fn rows_of<T: Real, const FUSED: bool>(reads: Reads<T>, rows: Range<usize>, y: &mut [MaybeUninit<T>]) {
    let Reads { u, taps, start, map, .. } = reads;
    assert!(rows.end <= map.h && u.len() == map.len() && taps.len() == map.taps_len(), "rows of {map:?}");
    assert!(start.is_none_or(|start| start.len() == map.r), "a start for {map:?}");
    for (row, y) in rows.zip(y.chunks_exact_mut((map.w * map.r).max(1))) {
        let meeting = map.meeting(row);
        by_channels!(map.r, [16, 8, 1], |c, L| {
            match (map.kernel, meeting.count) {
                (3, 3) => row_of_three::<T, L, 3, FUSED>(reads, meeting, c, y),
                (3, 2) => row_of_three::<T, L, 2, FUSED>(reads, meeting, c, y),
                (3, 1) => row_of_three::<T, L, 1, FUSED>(reads, meeting, c, y),
                _ => row_of_any::<T, L, FUSED>(reads, meeting, c, y),
            }
        });
    }
}

/// `L` channels of the rows that meet in an output row, at three neighbouring pixels: they move along the row together.
struct Neighbours<'a, T, const L: usize, const ROWS: usize> {
    rows: [&'a [T]; ROWS],
    /// Before, at and after the pixel.
    columns: [[[T; L]; ROWS]; 3],
}

impl<'a, T: Real, const L: usize, const ROWS: usize> Neighbours<'a, T, L, ROWS> {
    #[inline(always)]
    fn new(u: &'a [T], map: MapSize, meeting: Meeting) -> Self {
        let (width, mut rows) = (map.w * map.r, [&u[..0]; ROWS]);
        for i in 0..ROWS {
            rows[i] = &u[(meeting.first + i) * width..][..width];
        }
        Self { rows, columns: [[[T::zero(); L]; ROWS]; 3] }
    }

    /// Moves on by a pixel; the one after it begins at `next`.
    ///
    /// # Safety
    /// `L` channels from `next` lie inside a row.
    #[inline(always)]
    unsafe fn advance(&mut self, next: usize) {
        self.end();
        for i in 0..ROWS {
            // SAFETY: the caller's promise.
            self.columns[2][i] = unsafe { load::<T, L>(self.rows[i], next) };
        }
    }

    /// Moves on to the last pixel.
    #[inline(always)]
    fn end(&mut self) {
        self.columns[0] = self.columns[1];
        self.columns[1] = self.columns[2];
    }

    /// `start + Σ u taps` over the columns `FROM..TO`.
    #[inline(always)]
    fn weighted<const FROM: usize, const TO: usize, const FUSED: bool>(
        &self,
        taps: &[[[T; L]; ROWS]; 3],
        start: [T; L],
    ) -> [T; L] {
        let mut sum = start;
        for j in FROM..TO {
            for i in 0..ROWS {
                add_product::<T, L, FUSED>(&mut sum, self.columns[j][i], taps[j][i]);
            }
        }
        sum
    }

    /// `sum += dy u` for the columns `FROM..TO`.
    #[inline(always)]
    fn correlate<const FROM: usize, const TO: usize, const FUSED: bool>(
        &self,
        dy: [T; L],
        sum: &mut [[[T; L]; ROWS]; 3],
    ) {
        for j in FROM..TO {
            for i in 0..ROWS {
                add_product::<T, L, FUSED>(&mut sum[j][i], self.columns[j][i], dy);
            }
        }
    }
}

/// One output row of a 3 x 3 filter, `ROWS` of whose rows lie inside the map: its taps stay in registers.
#[inline(always)]
fn row_of_three<T: Real, const L: usize, const ROWS: usize, const FUSED: bool>(
    reads: Reads<T>,
    meeting: Meeting,
    c: usize,
    y: &mut [MaybeUninit<T>],
) {
    let MapSize { w, r, .. } = reads.map;
    assert!(w > 0 && c + L <= r && y.len() == w * r && meeting.tap + ROWS <= 3, "a row of {:?}", reads.map);
    let (mut taps, mut start) = ([[[T::zero(); L]; ROWS]; 3], [T::zero(); L]);
    for j in 0..3 {
        for i in 0..ROWS {
            // SAFETY: there are nine taps, and `c + L` is at most r.
            taps[j][i] = unsafe { load::<T, L>(reads.taps, reads.tap(meeting.tap + i, j) + c) };
        }
    }
    if let Some(from) = reads.start {
        // SAFETY: `c + L` is at most r, the length of `start`.
        start = unsafe { load::<T, L>(from, c) };
    }
    let mut near = Neighbours::<T, L, ROWS>::new(reads.u, reads.map, meeting);
    // SAFETY: pixels 0 to w - 1 of a row of w, each time `L` channels from c.
    unsafe {
        near.advance(c);
        if w == 1 {
            near.end();
            return store(y, c, near.weighted::<1, 2, FUSED>(&taps, start));
        }
        near.advance(r + c);
        store(y, c, near.weighted::<1, 3, FUSED>(&taps, start));
        for x in 2..w {
            near.advance(x * r + c);
            store(y, (x - 1) * r + c, near.weighted::<0, 3, FUSED>(&taps, start));
        }
        near.end();
        store(y, (w - 1) * r + c, near.weighted::<0, 2, FUSED>(&taps, start));
    }
}

/// One output row of a filter of any size.
#[inline(always)]
fn row_of_any<T: Real, const L: usize, const FUSED: bool>(
    reads: Reads<T>,
    meeting: Meeting,
    c: usize,
    y: &mut [MaybeUninit<T>],
) {
    let MapSize { w, r, kernel, .. } = reads.map;
    assert!(c + L <= r && y.len() == w * r, "a row of {:?}", reads.map);
    for x in 0..w {
        let columns = reads.map.columns(x);
        // SAFETY: `c + L` is at most r, the length of `start`.
        let mut sum = reads.start.map_or([T::zero(); L], |start| unsafe { load::<T, L>(start, c) });
        for i in 0..meeting.count {
            for j in columns.clone() {
                let from = ((meeting.first + i) * w + x + j - kernel / 2) * r + c;
                let tap = reads.tap(meeting.tap + i, j) + c;
                // SAFETY: `meeting` and `columns` keep to the map and to its taps, and `c + L` is at most r.
                let (u, tap) = unsafe { (load::<T, L>(reads.u, from), load::<T, L>(reads.taps, tap)) };
                add_product::<T, L, FUSED>(&mut sum, u, tap);
            }
        }
        // SAFETY: x is below w, and `c + L` is at most r.
        unsafe { store(y, x * r + c, sum) };
    }
}

vectorised_fn! {
    /// `sums += Σ dy u` over the pairs of places that each tap joins, for the outputs of some rows.
    fn add_tap_gradients<T: Real>(u: &[T], dy: &[T], map: MapSize, rows: Range<usize>, sums: &mut [T]) {
        if simd::fuses() {
            gradients_of::<T, true>(u, dy, map, rows, sums);
        } else {
            gradients_of::<T, false>(u, dy, map, rows, sums);
        }
    }
}

#[inline(always)]
fn gradients_of<T: Real, const FUSED: bool>(u: &[T], dy: &[T], map: MapSize, rows: Range<usize>, sums: &mut [T]) {
    let fits = u.len() == map.len() && dy.len() == map.len() && sums.len() == map.taps_len();
    assert!(rows.end <= map.h && fits, "rows of {map:?}");
    for row in rows {
        let (meeting, dy) = (map.meeting(row), map.rows(dy, &(row..row + 1)));
        by_channels!(map.r, [16, 8, 1], |c, L| {
            match (map.kernel, meeting.count) {
                (3, 3) => gradients_of_three::<T, L, 3, FUSED>(u, dy, map, meeting, c, sums),
                (3, 2) => gradients_of_three::<T, L, 2, FUSED>(u, dy, map, meeting, c, sums),
                (3, 1) => gradients_of_three::<T, L, 1, FUSED>(u, dy, map, meeting, c, sums),
                _ => gradients_of_any::<T, L, FUSED>(u, dy, map, meeting, c, sums),
            }
        });
    }
}

/// What one row of outputs gives to the taps of a 3 x 3 filter.
#[inline(always)]
fn gradients_of_three<T: Real, const L: usize, const ROWS: usize, const FUSED: bool>(
    u: &[T],
    dy: &[T],
    map: MapSize,
    meeting: Meeting,
    c: usize,
    sums: &mut [T],
) {
    let MapSize { w, r, .. } = map;
    assert!(w > 0 && c + L <= r && dy.len() == w * r && meeting.tap + ROWS <= 3, "a row of {map:?}");
    let mut near = Neighbours::<T, L, ROWS>::new(u, map, meeting);
    let mut sum = [[[T::zero(); L]; ROWS]; 3];
    // SAFETY: pixels 0 to w - 1 of a row of w, each time `L` channels from c.
    unsafe {
        near.advance(c);
        if w == 1 {
            near.end();
            near.correlate::<1, 2, FUSED>(load(dy, c), &mut sum);
        } else {
            near.advance(r + c);
            near.correlate::<1, 3, FUSED>(load(dy, c), &mut sum);
            for x in 2..w {
                near.advance(x * r + c);
                near.correlate::<0, 3, FUSED>(load(dy, (x - 1) * r + c), &mut sum);
            }
            near.end();
            near.correlate::<0, 2, FUSED>(load(dy, (w - 1) * r + c), &mut sum);
        }
    }
    for j in 0..3 {
        for i in 0..ROWS {
            add_to(sums, ((meeting.tap + i) * 3 + j) * r + c, sum[j][i]);
        }
    }
}

/// What one row of outputs gives to the taps of a filter of any size.
#[inline(always)]
fn gradients_of_any<T: Real, const L: usize, const FUSED: bool>(
    u: &[T],
    dy: &[T],
    map: MapSize,
    meeting: Meeting,
    c: usize,
    sums: &mut [T],
) {
    let MapSize { w, r, kernel, .. } = map;
    assert!(c + L <= r && dy.len() == w * r, "a row of {map:?}");
    let reach = kernel / 2;
    for i in 0..meeting.count {
        for j in 0..kernel {
            let mut sum = [T::zero(); L];
            for x in reach.saturating_sub(j)..w.min((w + reach).saturating_sub(j)) {
                let from = ((meeting.first + i) * w + x + j - reach) * r + c;
                // SAFETY: `meeting` and the bounds of x keep to the map, and `c + L` is at most r.
                let (u, dy) = unsafe { (load::<T, L>(u, from), load::<T, L>(dy, x * r + c)) };
                add_product::<T, L, FUSED>(&mut sum, u, dy);
            }
            add_to(sums, ((meeting.tap + i) * kernel + j) * r + c, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_a_large_map_give_what_the_whole_gives() {
        let map = MapSize { h: 70, w: 33, r: 27, kernel: 3 };
        assert!(map.h > map.band_rows());
        let values = |n: usize, step: f64| -> Vec<f64> { (0..n).map(|i| (i as f64 * step).sin()).collect() };
        let (u, dy, taps) = (values(map.len(), 0.37), values(map.len(), 0.11), values(map.taps_len(), 0.7));
        let close = |got: &[f64], want: &[f64]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-10);
        let (mut got, mut want) = (vec![0.0; map.len()], vec![0.0; map.len()]);
        map.convolve(&u, &taps, &mut got);
        let reads = Reads { u: &u, taps: &taps, start: None, map, direction: Direction::Forward };
        convolve_rows(reads, 0..map.h, written(&mut want));
        assert_eq!(got, want);
        let (mut got, mut want) = (vec![1.0; map.taps_len()], vec![0.0; map.taps_len()]);
        map.tap_gradients(&u, &dy, &mut got);
        add_tap_gradients(&u, &dy, map, 0..map.h, &mut want);
        assert!(close(&got, &want));
        let (mut got, mut want) = (vec![1.0; map.r], vec![0.0; map.r]);
        map.pool(&u, &mut got);
        u.chunks(map.r).for_each(|u| want.iter_mut().zip(u).for_each(|(sum, u)| *sum += u));
        want.iter_mut().for_each(|sum| *sum /= (map.h * map.w) as f64);
        assert!(close(&got, &want));
    }
}
