//! The taps of many maps at once from their pooled contexts, and the gradients of what makes them, on slices.

use super::cpu::{Real, loan};
use super::low_rank::{resize, zeroed};
use super::product::{Into, Matrix, product};
use super::segment::Gradients;
use super::simd::{self, vectorised_fn};
use candle_core::{Result, Tensor};
use num_traits::Float;

/// The weights that make a map's filter from its pooled context: `FilterNorm(W pool + b)`.
///
/// # Shapes
/// W `[r*k*k, r]`; b, scale and shift `[r*k*k]`, channel-major.
#[derive(Clone, Debug)]
pub struct FilterWeights {
    /// W.
    pub weight: Tensor,
    /// b.
    pub bias: Tensor,
    /// FilterNorm's factor of each tap.
    pub scale: Tensor,
    /// What FilterNorm adds to each tap.
    pub shift: Tensor,
    /// k, odd and at least 3.
    pub kernel: usize,
}

impl FilterWeights {
    /// Every weight.
    pub(super) fn tensors(&self) -> [&Tensor; 4] {
        [&self.weight, &self.bias, &self.scale, &self.shift]
    }

    /// The weights with their values in order.
    pub(super) fn contiguous(&self) -> Result<Self> {
        Ok(Self {
            weight: self.weight.contiguous()?,
            bias: self.bias.contiguous()?,
            scale: self.scale.contiguous()?,
            shift: self.shift.contiguous()?,
            kernel: self.kernel,
        })
    }
}

/// [`FilterWeights`] laid out for the product: tap-major, so that taps come out as rows of channels.
///
/// FilterNorm subtracts each channel's mean over its taps, which is linear: here the weights have it subtracted.
pub(super) struct FilterKernel<T> {
    /// Centred, `[r, k*k*r]`.
    weight: Vec<T>,
    /// Centred, `[k*k*r]`, as the next two.
    bias: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
    r: usize,
    kk: usize,
}

/// Taps and what their backward needs, for the maps at hand.
#[derive(Default)]
pub(super) struct Normed<T> {
    /// Centred and divided by the deviation, `[m, k*k, r]`.
    values: Vec<T>,
    /// Each channel's deviation, `[m, r]`.
    deviation: Vec<T>,
}

/// Sums of the gradients of [`FilterWeights`], laid out as the kernel's.
pub(super) struct FilterSums<T> {
    weight: Vec<T>,
    bias: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
}

/// What FilterNorm adds to a deviation.
const EPSILON: f64 = 1e-10;

impl<T: Real> FilterKernel<T> {
    pub(super) fn new(weights: &FilterWeights) -> Result<Self> {
        let (n, r) = weights.weight.dims2()?;
        let kk = weights.kernel * weights.kernel;
        if n != r * kk || weights.tensors()[1..].iter().any(|tensor| tensor.elem_count() != n) {
            candle_core::bail!(
                "the filter's weights: expected {} rows for {r} channels of {kk} taps, got {n}, and as many values of bias, \
                 scale and shift",
                r * kk
            )
        }
        let tap_major = |tensor: &Tensor| -> Result<Vec<T>> { Ok(transposed(&*loan::<T>(tensor)?, r, kk)) };
        let (loaned, mut weight) = (loan::<T>(&weights.weight)?, vec![T::zero(); n * r]);
        for (row, values) in loaned.chunks_exact(r).enumerate() {
            let at = row % kk * r + row / kk;
            values.iter().enumerate().for_each(|(i, value)| weight[i * n + at] = *value);
        }
        let mut bias = tap_major(&weights.bias)?;
        weight.chunks_exact_mut(n).chain([&mut bias[..]]).for_each(|row| centre(row, r));
        Ok(Self { weight, bias, scale: tap_major(&weights.scale)?, shift: tap_major(&weights.shift)?, r, kk })
    }

    /// The filters of m maps from their pooled contexts: `[m, r]` to `[m, k*k, r]`.
    pub(super) fn taps(&self, pooled: &[T], taps: &mut Vec<T>) {
        self.centred(pooled, taps);
        for taps in taps.chunks_exact_mut(self.bias.len()) {
            norm(taps, &mut [], &self.bias, self.r);
            scale_and_shift(taps, &self.scale, &self.shift);
        }
    }

    /// As [`FilterKernel::taps`], with what [`FilterKernel::backward_taps`] needs.
    pub(super) fn taps_and_normed(&self, pooled: &[T], taps: &mut Vec<T>, normed: &mut Normed<T>) {
        let Normed { values, deviation } = normed;
        self.centred(pooled, values);
        resize(deviation, pooled.len());
        resize(taps, values.len());
        let n = self.bias.len();
        let maps = values.chunks_exact_mut(n).zip(taps.chunks_exact_mut(n)).zip(deviation.chunks_exact_mut(self.r));
        for ((values, taps), deviation) in maps {
            norm(values, deviation, &self.bias, self.r);
            taps.copy_from_slice(values);
            scale_and_shift(taps, &self.scale, &self.shift);
        }
    }

    /// `W pool` with W centred.
    fn centred(&self, pooled: &[T], out: &mut Vec<T>) {
        let n = self.bias.len();
        resize(out, pooled.len() * self.kk);
        product(out, n, Into::Write, Matrix::rows(pooled, self.r), Matrix::rows(&self.weight, n), T::one());
    }

    pub(super) fn sums(&self) -> FilterSums<T> {
        let zeros = || vec![T::zero(); self.bias.len()];
        FilterSums { weight: vec![T::zero(); self.weight.len()], bias: zeros(), scale: zeros(), shift: zeros() }
    }

    /// Gradients of m maps' taps to those of their pooled contexts, and to the weights' sums; `dtaps` is written over.
    pub(super) fn backward_taps(
        &self,
        pooled: &[T],
        normed: &Normed<T>,
        dtaps: &mut [T],
        dpooled: &mut Vec<T>,
        sums: &mut FilterSums<T>,
    ) {
        let (n, r) = (self.bias.len(), self.r);
        let maps = normed.values.chunks_exact(n).zip(normed.deviation.chunks_exact(r));
        for (dtaps, (values, deviation)) in dtaps.chunks_exact_mut(n).zip(maps) {
            add_products(&mut sums.scale, dtaps, values);
            simd::vectorised(|| simd::add(&mut sums.shift, dtaps));
            norm_backward(dtaps, values, deviation, &self.scale);
            simd::vectorised(|| simd::add(&mut sums.bias, dtaps));
        }
        let (pooled, d) = (Matrix::rows(pooled, r), Matrix::rows(dtaps, n));
        product(&mut sums.weight, n, Into::Add, pooled.t(), d, T::one());
        zeroed(dpooled, normed.deviation.len());
        product(dpooled, r, Into::Write, d, Matrix::rows(&self.weight, n).t(), T::one());
    }
}

impl<T: Real> FilterSums<T> {
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, other) in [
            (&mut self.weight, &other.weight),
            (&mut self.bias, &other.bias),
            (&mut self.scale, &other.scale),
            (&mut self.shift, &other.shift),
        ] {
            simd::vectorised(|| simd::add(sum, other));
        }
    }

    /// Gives the weights their gradients.
    pub(super) fn give(mut self, weights: &FilterWeights, grads: &mut Gradients) -> Result<()> {
        let (n, r) = weights.weight.dims2()?;
        let kk = n / r.max(1);
        self.weight.chunks_exact_mut(n).chain([&mut self.bias[..]]).for_each(|row| centre(row, r));
        let mut weight = vec![T::zero(); n * r];
        for (row, values) in weight.chunks_exact_mut(r).enumerate() {
            let at = row % kk * r + row / kk;
            values.iter_mut().enumerate().for_each(|(i, value)| *value = self.weight[i * n + at]);
        }
        grads.give_values(&weights.weight, weight)?;
        grads.give_values(&weights.bias, transposed(&self.bias, kk, r))?;
        grads.give_values(&weights.scale, transposed(&self.scale, kk, r))?;
        grads.give_values(&weights.shift, transposed(&self.shift, kk, r))
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed<T: Real>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect()
}

/// Subtracts each channel's mean over the taps from taps `[k*k, r]`.
fn centre<T: Real>(taps: &mut [T], r: usize) {
    let kk = T::of((taps.len() / r.max(1)) as f64);
    for c in 0..r {
        let mean = taps[c..].iter().step_by(r).copied().sum::<T>() / kk;
        taps[c..].iter_mut().step_by(r).for_each(|tap| *tap = *tap - mean);
    }
}

/// Channels that a pass over a map's taps takes at a time.
const LANES: usize = 16;

vectorised_fn! {
    /// Taps `[k*k, r]`, centred but for the bias: adds that, divides by the unbiased deviation, and writes that where there is room.
    fn norm<T: Real>(taps: &mut [T], deviation: &mut [T], bias: &[T], r: usize) {
        let degrees = T::of((taps.len() / r - 1) as f64);
        let mut c = 0;
        while c < r {
            let lanes = LANES.min(r - c);
            let mut squares = [T::zero(); LANES];
            for (taps, bias) in taps.chunks_exact_mut(r).zip(bias.chunks_exact(r)) {
                let (taps, bias) = (&mut taps[c..c + lanes], &bias[c..c + lanes]);
                for ((tap, bias), square) in taps.iter_mut().zip(bias).zip(&mut squares) {
                    *tap += *bias;
                    *square += *tap * *tap;
                }
            }
            for square in &mut squares {
                *square = (*square / degrees).sqrt();
            }
            if !deviation.is_empty() {
                deviation[c..c + lanes].copy_from_slice(&squares[..lanes]);
            }
            for square in &mut squares {
                *square = T::one() / (*square + T::of(EPSILON));
            }
            for taps in taps.chunks_exact_mut(r) {
                for (tap, inverse) in taps[c..c + lanes].iter_mut().zip(&squares) {
                    *tap *= *inverse;
                }
            }
            c += lanes;
        }
    }
}

vectorised_fn! {
    /// `taps = taps scale + shift`.
    fn scale_and_shift<T: Real>(taps: &mut [T], scale: &[T], shift: &[T]) {
        for ((tap, scale), shift) in taps.iter_mut().zip(scale).zip(shift) {
            *tap = *tap * *scale + *shift;
        }
    }
}

vectorised_fn! {
    /// `sums += x y`.
    fn add_products<T: Real>(sums: &mut [T], x: &[T], y: &[T]) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += *x * *y;
        }
    }
}

vectorised_fn! {
    /// Gradients of a map's taps `[k*k, r]` to those of the centred values, in place.
    ///
    /// With v = c / (s + ε), s² = Σ c² / (k*k - 1) and g = dtaps scale: `dc = (g - v Σ g v (s + ε) / (s (k*k - 1))) / (s + ε)`.
    fn norm_backward<T: Real>(d: &mut [T], values: &[T], deviation: &[T], scale: &[T]) {
        let r = deviation.len();
        let (degrees, epsilon) = (T::of((d.len() / r - 1) as f64), T::of(EPSILON));
        let mut c = 0;
        while c < r {
            let lanes = LANES.min(r - c);
            let mut along = [T::zero(); LANES];
            for ((d, values), scale) in d.chunks_exact_mut(r).zip(values.chunks_exact(r)).zip(scale.chunks_exact(r)) {
                let (d, values, scale) = (&mut d[c..c + lanes], &values[c..c + lanes], &scale[c..c + lanes]);
                for (((d, value), scale), along) in d.iter_mut().zip(values).zip(scale).zip(&mut along) {
                    *d *= *scale;
                    *along += *d * *value;
                }
            }
            let mut inverse = [T::zero(); LANES];
            for ((along, inverse), s) in along.iter_mut().zip(&mut inverse).zip(&deviation[c..c + lanes]) {
                // Taps that are all the same have no slope in s: their values are 0.
                *along *= (*s + epsilon) / (Float::max(*s, T::min_positive_value()) * degrees);
                *inverse = T::one() / (*s + epsilon);
            }
            for (d, values) in d.chunks_exact_mut(r).zip(values.chunks_exact(r)) {
                let (d, values) = (&mut d[c..c + lanes], &values[c..c + lanes]);
                for (((d, value), along), inverse) in d.iter_mut().zip(values).zip(&along).zip(&inverse) {
                    *d = (*d - *value * *along) * *inverse;
                }
            }
            c += lanes;
        }
    }
}
