//! The mean of a map's pixels.
#![allow(unsafe_code)] // unchecked loads in inner loops, checked once for each row
#![allow(clippy::needless_range_loop)] // channels side by side are counted together

use super::size::MapSize;
use crate::ops::cpu::Real;
use crate::ops::cpu::channels::{Channels, by_channels};
use pulp::{Arch, Simd, WithSimd};

impl MapSize {
    /// `mean = Σ u / (h w)`, for each channel.
    pub(in crate::ops) fn pool<T: Real>(&self, u: &[T], mean: &mut [T]) {
        let sums = self.by_bands(self.r, mean, |rows, sums| {
            Arch::new().dispatch(AddPixels { u: self.rows(u, &rows), map: *self, sums });
        });
        let count = T::of((self.h * self.w) as f64);
        sums.iter_mut().for_each(|sum| *sum /= count);
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
