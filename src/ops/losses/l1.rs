//! The mean absolute difference.

use super::lanes::sum;
use super::pixels::{BLOCK, Channels, ChannelsMut, Pixels, scale, valid};
use super::{LabelOf, absolute, check, masked, mean_over, total, wide};
use crate::ops::cpu::Real;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// `|outputs - label|`, the mean over valid values.
///
/// # Shapes
/// `outputs` and `label` have the same.
pub(crate) fn l1(outputs: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let outputs = wide(outputs)?;
    let label = label.to_dtype(outputs.dtype())?;
    only(apply(L1 { outputs, label, ignore })?)
}

#[derive(Clone)]
struct L1 {
    outputs: Tensor,
    label: Tensor,
    ignore: f32,
}

impl Step for L1 {
    fn name(&self) -> &'static str {
        "l1"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { outputs: f(&self.outputs)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        check(shapes, &self.outputs, &self.label, LabelOf::Channels)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        Ok(vec![mean_apart(&self.outputs, &self.label, self.ignore)?])
    }
}

impl<T: Real> CpuKernel<T> for L1 {
    /// The number of valid values.
    type Saved = f64;

    fn forward(&self, _: Keep) -> Result<Passed<Self::Saved>> {
        let ignore = T::of(self.ignore.into());
        let blocks = Pixels::of_values(&self.outputs)
            .map(&self.outputs, &self.label, |x: &Channels<T>, label| sums(x[0], label[0], ignore))?;
        let (sum, count) = blocks.into_iter().fold((0.0, 0.0), |all, block| (all.0 + block.0, all.1 + block.1));
        let count = f64::max(count, 1.0);
        Ok((vec![Output::new(vec![T::of(sum / count)], ())], Some(count)))
    }

    fn backward(&self, count: f64, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(scale) = scale::<T>(&outputs, count)? else { return Ok(()) };
        let ignore = T::of(self.ignore.into());
        let write = |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>| {
            write_gradient(dx[0], x[0], label[0], ignore, scale)
        };
        grads.give_values(&self.outputs, Pixels::of_values(&self.outputs).gradient(&self.outputs, &self.label, write)?)
    }
}

/// `|x - label|`, the mean over valid values.
pub(super) fn mean_apart(x: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let (label, mask) = masked(label, x.dtype(), ignore)?;
    mean_over(&total(&(absolute(&(x - label)?)? * &mask)?)?, &total(&mask)?)
}

vectorised_fn! {
    /// The sum over a block's valid values, and their number.
    fn sums<T: Real>(x: &[T], label: &[T], ignore: T) -> (f64, f64) {
        let mut apart = [T::zero(); BLOCK];
        for ((apart, x), label) in apart.iter_mut().zip(x).zip(label) {
            *apart = if *label == ignore { T::zero() } else { (*x - *label).abs() };
        }
        (sum(&apart[..x.len()]), valid(label, ignore))
    }
}

vectorised_fn! {
    fn write_gradient<T: Real>(dx: &mut [T], x: &[T], label: &[T], ignore: T, scale: T) {
        for ((dx, x), label) in dx.iter_mut().zip(x).zip(label) {
            *dx = pull(*x, *label, ignore) * scale;
        }
    }
}

/// The gradient of `|x - label|`: 0 where they are equal, as PyTorch's, and where the label is ignored.
#[inline(always)]
pub(super) fn pull<T: Real>(x: T, label: T, ignore: T) -> T {
    let above = if x > label { T::one() } else { T::zero() };
    let below = if x < label { T::one() } else { T::zero() };
    if label == ignore { T::zero() } else { above - below }
}
