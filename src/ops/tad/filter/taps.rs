//! The taps of many maps at once from their pooled contexts, and the gradients of what makes them, on slices.

use crate::ops::cpu::channels::by_channels;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Matrix, Real, add_product, product, resize, values};
use crate::ops::graph::{InputGradients, OnTensor};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use pulp::{Arch, Simd, WithSimd};

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
    pub kernel_size: usize,
}

impl FilterWeights {
    /// Every weight.
    pub(in crate::ops) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let (weight, bias) = (f(&self.weight)?, f(&self.bias)?);
        Ok(Self { weight, bias, scale: f(&self.scale)?, shift: f(&self.shift)?, ..*self })
    }

    /// For the step of `shapes`, on maps of r channels.
    pub(in crate::ops) fn check(&self, shapes: Shapes, r: usize) -> Result<()> {
        let n = shapes.taps(self.kernel_size, 3)?.saturating_mul(r);
        shapes.expect("a weight", &self.weight, &[n, r])?;
        shapes.expect("a bias", &self.bias, &[n])?;
        shapes.expect("a scale", &self.scale, &[n])?;
        shapes.expect("a shift", &self.shift, &[n])
    }
}

/// [`FilterWeights`] laid out for the product: tap-major, so that taps come out as rows of channels.
///
/// FilterNorm subtracts each channel's mean over its taps, which is linear: here the weights have it subtracted.
pub(in crate::ops) struct FilterKernel<T> {
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
pub(in crate::ops) struct Normed<T> {
    /// Centred and divided by the deviation, `[m, k*k, r]`.
    values: Vec<T>,
    /// Each channel's deviation, `[m, r]`.
    deviation: Vec<T>,
}

/// Sums of the gradients of [`FilterWeights`], laid out as the kernel's.
pub(in crate::ops) struct FilterSums<T> {
    weight: Vec<T>,
    bias: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
}

/// What FilterNorm adds to a deviation.
const EPSILON: f64 = 1e-10;

impl<T: Real> FilterKernel<T> {
    /// From weights that [`FilterWeights::check`] has found to fit.
    pub(in crate::ops) fn new(weights: &FilterWeights) -> Result<Self> {
        let ((n, r), kk) = (weights.weight.dims2()?, weights.kernel_size * weights.kernel_size);
        let tap_major = |tensor: &Tensor| -> Result<Vec<T>> { Ok(transposed(&values::<T>(tensor)?, r, kk)) };
        let (loaned, mut weight) = (values::<T>(&weights.weight)?, vec![T::zero(); n * r]);
        for (row, values) in loaned.chunks_exact(r).enumerate() {
            let at = row % kk * r + row / kk;
            values.iter().enumerate().for_each(|(i, value)| weight[i * n + at] = *value);
        }
        let mut bias = tap_major(&weights.bias)?;
        weight.chunks_exact_mut(n).chain([&mut bias[..]]).for_each(|row| centre(row, r));
        Ok(Self { weight, bias, scale: tap_major(&weights.scale)?, shift: tap_major(&weights.shift)?, r, kk })
    }

    /// The filters of m maps from their pooled contexts: `[m, r]` to `[m, k*k, r]`.
    pub(in crate::ops) fn taps(&self, pooled: &[T], taps: &mut Vec<T>) {
        self.centred(pooled, taps);
        Arch::new().dispatch(Norm { taps, normed: None, kernel: self });
    }

    /// As [`FilterKernel::taps`], with what [`FilterKernel::backward_taps`] needs.
    pub(in crate::ops) fn taps_and_normed(&self, pooled: &[T], taps: &mut Vec<T>, normed: &mut Normed<T>) {
        let Normed { values, deviation } = normed;
        self.centred(pooled, taps);
        resize(deviation, pooled.len());
        resize(values, taps.len());
        Arch::new().dispatch(Norm { taps, normed: Some((values, deviation)), kernel: self });
    }

    /// `W pool` with W centred.
    fn centred(&self, pooled: &[T], out: &mut Vec<T>) {
        let n = self.bias.len();
        resize(out, pooled.len() * self.kk);
        product(out, n, Matrix::rows(pooled, self.r), Matrix::rows(&self.weight, n), T::one());
    }

    pub(in crate::ops) fn sums(&self) -> FilterSums<T> {
        let zeros = || vec![T::zero(); self.bias.len()];
        FilterSums { weight: vec![T::zero(); self.weight.len()], bias: zeros(), scale: zeros(), shift: zeros() }
    }

    /// InputGradients of m maps' taps to those of their pooled contexts, and to the weights' sums; `dtaps` is written over.
    pub(in crate::ops) fn backward_taps(
        &self,
        pooled: &[T],
        normed: &Normed<T>,
        dtaps: &mut [T],
        dpooled: &mut Vec<T>,
        sums: &mut FilterSums<T>,
    ) {
        let (n, r, pooled_len) = (self.bias.len(), self.r, pooled.len());
        assert!(dtaps.len() == normed.values.len() && dtaps.len() == pooled.len() * self.kk, "taps of {r} channels");
        Arch::new().dispatch(NormBackward { d: dtaps, normed, kernel: self, sums });
        let (pooled, d) = (Matrix::rows(pooled, r), Matrix::rows(dtaps, n));
        add_product(&mut sums.weight, n, pooled.t(), d, T::one());
        resize(dpooled, pooled_len);
        product(dpooled, r, d, Matrix::rows(&self.weight, n).t(), T::one());
    }
}

impl<T: Real> FilterSums<T> {
    pub(in crate::ops) fn add(&mut self, other: &Self) {
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
    pub(in crate::ops) fn give(mut self, weights: &FilterWeights, grads: &mut InputGradients) -> Result<()> {
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
        taps[c..].iter_mut().step_by(r).for_each(|tap| *tap -= mean);
    }
}

/// Taps `[k*k, r]` of maps, centred but for the bias: adds that and divides by the unbiased deviation, then scales and shifts.
struct Norm<'a, T> {
    taps: &'a mut [T],
    /// Where the normed values and the deviations go, if anywhere.
    normed: Option<(&'a mut [T], &'a mut [T])>,
    kernel: &'a FilterKernel<T>,
}

impl<T: Real> WithSimd for Norm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { taps, mut normed, kernel: FilterKernel { bias, scale, shift, r, kk, .. } } = self;
        let (n, r) = (kk * *r, *r);
        assert!([bias, scale, shift].iter().all(|values| values.len() == n), "weights of {r} channels");
        let over_degrees = T::splat(simd, T::one() / T::of((kk - 1) as f64));
        let (one, epsilon) = (T::splat(simd, T::one()), T::splat(simd, T::of(EPSILON)));
        for (map, taps) in taps.chunks_exact_mut(n).enumerate() {
            by_channels!(T, S, r, |channels, WHOLE| {
                let mut squares = T::splat(simd, T::zero());
                for row in (0..n).step_by(r) {
                    channels.add_to::<T, S, WHOLE>(simd, taps, row, channels.of::<T, S, WHOLE>(simd, bias, row));
                    let tap = channels.of::<T, S, WHOLE>(simd, taps, row);
                    squares = T::multiply_add(simd, tap, tap, squares);
                }
                let deviation = T::root(simd, T::times(simd, squares, over_degrees));
                let inverse = T::over(simd, one, T::plus(simd, deviation, epsilon));
                if let Some((_, deviations)) = &mut normed {
                    channels.put::<T, S, WHOLE>(simd, deviations, map * r, deviation);
                }
                for row in (0..n).step_by(r) {
                    let value = T::times(simd, channels.of::<T, S, WHOLE>(simd, taps, row), inverse);
                    if let Some((values, _)) = &mut normed {
                        channels.put::<T, S, WHOLE>(simd, values, map * n + row, value);
                    }
                    let scale = channels.of::<T, S, WHOLE>(simd, scale, row);
                    let shift = channels.of::<T, S, WHOLE>(simd, shift, row);
                    channels.put::<T, S, WHOLE>(simd, taps, row, T::multiply_add(simd, value, scale, shift));
                }
            });
        }
    }
}

/// InputGradients of maps' taps `[k*k, r]` to those of the centred values, in place, and the sums of scale, shift and bias.
///
/// With v = c / (s + ε), s² = Σ c² / (k*k - 1) and g = dtaps scale: `dc = (g - v Σ g v (s + ε) / (s (k*k - 1))) / (s + ε)`.
struct NormBackward<'a, T> {
    d: &'a mut [T],
    normed: &'a Normed<T>,
    kernel: &'a FilterKernel<T>,
    sums: &'a mut FilterSums<T>,
}

impl<T: Real> WithSimd for NormBackward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { d, normed, kernel: FilterKernel { scale, r, kk, .. }, sums } = self;
        let (n, r) = (kk * *r, *r);
        let over_degrees = T::splat(simd, T::one() / T::of((kk - 1) as f64));
        let (one, epsilon) = (T::splat(simd, T::one()), T::splat(simd, T::of(EPSILON)));
        // Taps that are all the same have no slope in s: their values are 0.
        let (least, minus) = (T::splat(simd, T::min_positive_value()), T::splat(simd, -T::one()));
        for (map, d) in d.chunks_exact_mut(n).enumerate() {
            by_channels!(T, S, r, |channels, WHOLE| {
                let mut along = T::splat(simd, T::zero());
                for row in (0..n).step_by(r) {
                    let dtap = channels.of::<T, S, WHOLE>(simd, d, row);
                    let value = channels.of::<T, S, WHOLE>(simd, &normed.values, map * n + row);
                    channels.add_to::<T, S, WHOLE>(simd, &mut sums.scale, row, T::times(simd, dtap, value));
                    channels.add_to::<T, S, WHOLE>(simd, &mut sums.shift, row, dtap);
                    let g = T::times(simd, dtap, channels.of::<T, S, WHOLE>(simd, scale, row));
                    along = T::multiply_add(simd, g, value, along);
                    channels.put::<T, S, WHOLE>(simd, d, row, g);
                }
                let deviation = channels.of::<T, S, WHOLE>(simd, &normed.deviation, map * r);
                let divisor = T::plus(simd, deviation, epsilon);
                let slope = T::times(simd, T::over(simd, divisor, T::plus(simd, deviation, least)), over_degrees);
                let back = T::times(simd, minus, T::times(simd, along, slope));
                let inverse = T::over(simd, one, divisor);
                for row in (0..n).step_by(r) {
                    let value = channels.of::<T, S, WHOLE>(simd, &normed.values, map * n + row);
                    let g = channels.of::<T, S, WHOLE>(simd, d, row);
                    let dc = T::times(simd, T::multiply_add(simd, value, back, g), inverse);
                    channels.put::<T, S, WHOLE>(simd, d, row, dc);
                    channels.add_to::<T, S, WHOLE>(simd, &mut sums.bias, row, dc);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::normal;

    #[test]
    fn taps_that_are_all_the_same_have_finite_gradients() -> Result<()> {
        let zeros = normal(1, &[18])?.zeros_like()?;
        let weight = normal(1, &[18, 2])?.zeros_like()?;
        let weights =
            FilterWeights { weight, bias: zeros, scale: normal(2, &[18])?, shift: normal(3, &[18])?, kernel_size: 3 };
        let (kernel, pooled) = (FilterKernel::<f64>::new(&weights)?, [1.0, 2.0]);
        let (mut taps, mut normed, mut dpooled) = (Vec::new(), Normed::default(), Vec::new());
        kernel.taps_and_normed(&pooled, &mut taps, &mut normed);
        let mut sums = kernel.sums();
        kernel.backward_taps(&pooled, &normed, &mut [1.0; 18], &mut dpooled, &mut sums);
        assert!(dpooled.iter().chain(&sums.weight).chain(&sums.bias).all(|value| value.is_finite()));
        Ok(())
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() -> Result<()> {
        let (n, weight) = (normal(1, &[18])?, normal(3, &[18, 2])?);
        let check = |shift: &Tensor, kernel_size| {
            let (weight, bias, scale, shift) = (weight.clone(), n.clone(), n.clone(), shift.clone());
            FilterWeights { weight, bias, scale, shift, kernel_size }.check(Shapes::of("taps", &n)?, 2)
        };
        check(&n, 3)?;
        assert!(check(&normal(2, &[9])?, 3).unwrap_err().to_string().contains("a shift [18]"));
        for kernel_size in [0, 1, 2, 4, usize::MAX] {
            assert!(check(&n, kernel_size).unwrap_err().to_string().contains("odd kernel size"), "{kernel_size}");
        }
        Ok(())
    }
}
