//! Balanced binary cross entropy.

use super::lanes::{sum, sum_of_logs};
use super::pixels::{BLOCK, Channels, ChannelsMut, Pixels, scale};
use super::{LabelOf, absolute, check, masked, mean_over, total, wide};
use crate::finite::{Finite, look};
use crate::ops::cpu::Real;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// `Σ (w y softplus(-x) + (1 - w) (1 - y) softplus(x)) / N`, N the number of valid pixels; labels are parted at 0.5.
///
/// Without a fixed `weight` w is the share of negatives among the valid pixels.
///
/// # Shapes
/// `outputs` and `label` have the same.
pub(crate) fn balanced_bce(outputs: &Tensor, label: &Tensor, weight: Option<f64>, ignore: f32) -> Result<Tensor> {
    // Neither a 0 nor a 1, and no loss would tell: NaN is not at least 0.5, and infinity is.
    let finite = look(label)?;
    if let Finite::Known(false) = finite {
        candle_core::bail!(
            "label: expected 0, 1 or {ignore}, got NaN or infinity (mark pixels of which nothing is known {ignore})"
        );
    }
    let outputs = wide(outputs)?;
    let label = label.to_dtype(outputs.dtype())?;
    let loss = only(apply(BalancedBce { outputs, label, weight, ignore })?)?;
    match finite {
        // On a device: NaN where the label has one, for whoever reads the loss.
        Finite::Unread(zero) => &loss + zero.to_dtype(loss.dtype())?,
        Finite::Known(_) => Ok(loss),
    }
}

#[derive(Clone)]
struct BalancedBce {
    outputs: Tensor,
    label: Tensor,
    /// Of the positives, where it is fixed.
    weight: Option<f64>,
    ignore: f32,
}

impl Step for BalancedBce {
    fn name(&self) -> &'static str {
        "balanced-bce"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { outputs: f(&self.outputs)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        check(shapes, &self.outputs, &self.label, LabelOf::Channels)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let x = &self.outputs;
        let (label, mask) = masked(&self.label, x.dtype(), self.ignore)?;
        let positive = label.ge(0.5)?.to_dtype(x.dtype())?;
        let negative = (&mask - &positive)?;
        let count = total(&mask)?;
        let weight = match self.weight {
            Some(weight) => (count.ones_like()? * weight)?,
            None => mean_over(&total(&negative)?, &count)?,
        };
        let positives = total(&(softplus(&x.neg()?)? * positive)?)?;
        let negatives = total(&(softplus(x)? * negative)?)?;
        let sum = ((positives * &weight)? + (negatives * weight.affine(-1.0, 1.0)?)?)?;
        Ok(vec![mean_over(&sum, &count)?])
    }
}

impl<T: Real> CpuKernel<T> for BalancedBce {
    /// The number of valid pixels, and the weight of the positives.
    type Saved = (f64, f64);

    fn forward(&self, _: Keep) -> Result<Passed<Self::Saved>> {
        let ignore = T::of(self.ignore.into());
        let (mut positives, mut negatives) = (Side::default(), Side::default());
        let sums = |x: &Channels<T>, label: &Channels<T>| sums(x[0], label[0], ignore);
        for (positive, negative) in Pixels::of_values(&self.outputs).map(&self.outputs, &self.label, sums)? {
            positives.add(positive);
            negatives.add(negative);
        }
        let count = (positives.count + negatives.count).max(1.0);
        let weight = self.weight.unwrap_or(negatives.count / count);
        let sum = weight * positives.sum + (1.0 - weight) * negatives.sum;
        Ok((vec![Output::new(vec![T::of(sum / count)], ())], Some((count, weight))))
    }

    fn backward(
        &self,
        (count, weight): (f64, f64),
        outputs: Vec<Option<Tensor>>,
        grads: &mut InputGradients,
    ) -> Result<()> {
        let Some(scale) = scale::<T>(&outputs, count)? else { return Ok(()) };
        let (ignore, scales) = (T::of(self.ignore.into()), (T::of(weight) * scale, T::of(1.0 - weight) * scale));
        let write = |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>| {
            write_gradient(dx[0], x[0], label[0], ignore, scales)
        };
        grads.give_values(&self.outputs, Pixels::of_values(&self.outputs).gradient(&self.outputs, &self.label, write)?)
    }
}

/// `log(1 + exp(x))`, stable for large values of either sign: `(x + |x|)/2 + log(1 + exp(-|x|))`.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let size = absolute(x)?;
    ((x + &size)? * 0.5)? + (size.neg()?.exp()? + 1.0)?.log()?
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
