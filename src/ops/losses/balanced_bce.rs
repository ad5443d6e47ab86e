//! Balanced binary cross entropy.

use super::lanes::{sum, sum_of_logs};
use super::pixels::{BLOCK, Channels, ChannelsMut, PixelMean, Pixels};
use super::{LabelOf, absolute, check, fuses, masked, mean_over, total, wide};
use crate::ops::cpu::{Real, by_float};
use crate::ops::simd::vectorised_fn;
use crate::ops::trace::{self, Pass};
use candle_core::{Result, Tensor};

/// `Σ (w y softplus(-x) + (1 - w) (1 - y) softplus(x)) / N`, N the number of valid pixels; labels are parted at 0.5.
///
/// Without a fixed `weight` w is the share of negatives among the valid pixels.
///
/// # Shapes
/// `outputs` and `label` have the same.
pub(crate) fn balanced_bce(outputs: &Tensor, label: &Tensor, weight: Option<f64>, ignore: f32) -> Result<Tensor> {
    check("balanced-bce", outputs, label, LabelOf::Channels)?;
    let outputs = wide(outputs)?;
    if fuses(&outputs, label) {
        by_float!(outputs.dtype(), fused(&outputs.contiguous()?, label, weight, ignore))
    } else {
        composed(&outputs, label, weight, ignore)
    }
}

pub(super) fn composed(x: &Tensor, label: &Tensor, weight: Option<f64>, ignore: f32) -> Result<Tensor> {
    let (label, mask) = masked(label, x.dtype(), ignore)?;
    let positive = label.ge(0.5)?.to_dtype(x.dtype())?;
    let negative = (&mask - &positive)?;
    let count = total(&mask)?;
    let weight = match weight {
        Some(weight) => (count.ones_like()? * weight)?,
        None => mean_over(&total(&negative)?, &count)?,
    };
    let positives = total(&(softplus(&x.neg()?)? * positive)?)?;
    let negatives = total(&(softplus(x)? * negative)?)?;
    let sum = ((positives * &weight)? + (negatives * weight.affine(-1.0, 1.0)?)?)?;
    mean_over(&sum, &count)
}

/// `log(1 + exp(x))`, stable for large values of either sign: `(x + |x|)/2 + log(1 + exp(-|x|))`.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let size = absolute(x)?;
    ((x + &size)? * 0.5)? + (size.neg()?.exp()? + 1.0)?.log()?
}

fn fused<T: Real>(x: &Tensor, label: &Tensor, weight: Option<f64>, ignore: f32) -> Result<Tensor> {
    let _op = trace::op("balanced-bce", Pass::Forward).moves(|| trace::bytes([x, label]));
    let (label, pixels) = (label.to_dtype(T::DTYPE)?.contiguous()?, Pixels::of_values(x));
    let ignore = T::of(ignore.into());
    let (mut positives, mut negatives) = (Side::default(), Side::default());
    for (positive, negative) in pixels.map(x, &label, |x, label| sums(x[0], label[0], ignore))? {
        positives.add(positive);
        negatives.add(negative);
    }
    let count = (positives.count + negatives.count).max(1.0);
    let weight = weight.unwrap_or(negatives.count / count);
    let gradient = move |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>, scale: T| {
        let scales = (T::of(weight) * scale, T::of(1.0 - weight) * scale);
        write_gradient(dx[0], x[0], label[0], ignore, scales)
    };
    let sum = weight * positives.sum + (1.0 - weight) * negatives.sum;
    x.apply_op1(PixelMean { name: "balanced-bce", value: T::of(sum / count), count, pixels, label, gradient })
}

/// The positive or the negative pixels: the sum of their softplus, and their number.
#[derive(Default)]
struct Side {
    sum: f64,
    count: f64,
}

impl Side {
    fn add(&mut self, block: Self) {
        self.sum += block.sum;
        self.count += block.count;
    }
}

vectorised_fn! {
    /// A block's positive and negative pixels.
    fn sums<T: Real>(x: &[T], label: &[T], ignore: T) -> (Side, Side) {
        let mut factors = [T::one(); BLOCK]; // whose logarithm is what softplus adds to its linear part
        for (factor, x) in factors.iter_mut().zip(x) {
            *factor = T::one() + (-x.abs()).exponential();
        }
        let positive = side(x, &factors, label, -T::one(), |label| is_positive(label) & (label != ignore));
        let negative = side(x, &factors, label, T::one(), |label| !is_positive(label) & (label != ignore));
        (positive, negative)
    }
}

#[inline(always)]
fn is_positive<T: Real>(label: T) -> bool {
    label >= T::of(0.5)
}

/// `Σ softplus(sign x)` over the pixels whose label is of this side.
#[inline(always)]
fn side<T: Real>(x: &[T], factors: &[T], label: &[T], sign: T, has: impl Fn(T) -> bool) -> Side {
    let (mut linear, mut factor) = ([T::zero(); BLOCK], [T::one(); BLOCK]);
    for ((((linear, factor), x), own), label) in linear.iter_mut().zip(&mut factor).zip(x).zip(factors).zip(label) {
        let has = has(*label);
        *linear = if has { (*x * sign + x.abs()) * T::of(0.5) } else { T::zero() };
        *factor = if has { *own } else { T::one() };
    }
    let count = label.iter().filter(|label| has(**label)).count();
    Side { sum: sum(&linear[..x.len()]) + sum_of_logs(&factor[..x.len()]), count: count as f64 }
}

vectorised_fn! {
    /// `dx = -p sigmoid(-x)` for positives, `n sigmoid(x)` for negatives, with `scales` p and n.
    fn write_gradient<T: Real>(dx: &mut [T], x: &[T], label: &[T], ignore: T, scales: (T, T)) {
        let (positive, negative) = scales;
        for ((dx, x), label) in dx.iter_mut().zip(x).zip(label) {
            let small = (-x.abs()).exponential();
            let nearer = (T::one() + small).recip(); // the sigmoid of |x|
            let farther = small * nearer;
            let (of_x, of_minus_x) = if *x >= T::zero() { (nearer, farther) } else { (farther, nearer) };
            let slope = if is_positive(*label) { -positive * of_minus_x } else { negative * of_x };
            *dx = if *label == ignore { T::zero() } else { slope };
        }
    }
}
