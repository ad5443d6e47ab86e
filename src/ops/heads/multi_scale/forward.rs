//! The batch's moments, and the output.
#![allow(unsafe_code)] // blocks of rows write their own parts of the output

use super::Moments;
use super::kernel::{Kernel, Layer, Rows};
use super::resample::Then;
use crate::ops::cpu::simd;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::cpu::{Matrix, Parts, Real, product, resize, sum_rows};
use candle_core::WithDType;

impl<T: Real> Kernel<'_, T> {
    /// The output, from the layer that gives normed values.
    pub(super) fn forward(&self, layer: &Layer<T>) -> Vec<T> {
        let mut y = vec![T::zero(); self.count() * self.outputs];
        let out = Parts::of(&mut y);
        for image in 0..self.images {
            let image = self.image(image, layer);
            self.finest().blocks().for_each(
                || (Rows::default(), Vec::new()),
                |(made, part): &mut (Rows<T>, Vec<T>), rows| {
                    self.fill(&image, &rows, Then::Relu, made);
                    let n = rows.len() * self.size.1;
                    resize(part, self.outputs * n);
                    let (weight, z) =
                        (Matrix::rows(&image.out_weight, self.hidden), Matrix::rows(&made.z, self.hidden));
                    product(part, n, weight, z.t(), T::one());
                    for (i, (part, bias)) in part.chunks_exact(n).zip(&*self.out_bias).enumerate() {
                        let start = (image.i * self.outputs + i) * self.positions() + rows.start * self.size.1;
                        // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                        let out = unsafe { out.at(start, n) };
                        out.iter_mut().zip(part).for_each(|(y, part)| *y = *part + *bias);
                    }
                },
            );
        }
        y
    }

    /// Mean and biased variance of each hidden channel over all images.
    ///
    /// Hidden values depend linearly on the maps, so that their mean is the layer of the maps' means.
    pub(super) fn batch_moments(&self) -> Moments<T> {
        let mean = self.hidden_of(&self.means());
        let layer = self.folded(&mean, &vec![T::one(); self.hidden]);
        let mut variance = vec![T::zero(); self.hidden];
        for image in 0..self.images {
            let image = self.image(image, &layer);
            let (sums, _) = self.finest().blocks().sum(
                || (vec![T::zero(); self.hidden], Rows::default()),
                |(sums, made), rows| {
                    self.fill(&image, &rows, Then::Stay, made);
                    add_squares(sums, &made.z);
                },
                |(sums, _), (more, _)| simd::add(sums, &more),
            );
            simd::add(&mut variance, &sums);
        }
        let count = T::of(self.count() as f64);
        variance.iter_mut().for_each(|variance| *variance /= count);
        Moments { mean, variance }
    }

    /// The mean of each channel of the resized maps, over all images.
    fn means(&self) -> Vec<f64> {
        let mut means = vec![0.0; self.channels];
        for scale in &self.scales {
            let [rows, columns] = scale.resample.shares();
            for map in &scale.maps {
                let sums = sum_rows(self.images * scale.size.0, map.c, |row, sums: &mut [f64]| {
                    let tokens = map.rows(&scale.positions(0, &(row..row + 1))); // rows counted through all images
                    add_row(sums, tokens, rows[row % scale.size.0], &columns);
                });
                means[map.column..].iter_mut().zip(sums).for_each(|(mean, sum)| *mean = sum / self.count() as f64);
            }
        }
        means
    }
}

/// `sums += share Σ_j shares_j x_j` over the positions of a row.
fn add_row<T: Real>(sums: &mut [f64], row: &[T], share: f64, shares: &[f64]) {
    for (x, of) in row.chunks_exact(sums.len()).zip(shares) {
        let share = share * of;
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += WithDType::to_f64(*x) * share);
    }
}

vectorised_fn! {
    /// Adds each column's squares.
    fn add_squares<T: Real>(sums: &mut [T], z: &[T]) {
        for row in z.chunks_exact(sums.len()) {
            for (sum, z) in sums.iter_mut().zip(row) {
                *sum += *z * *z;
            }
        }
    }
}
