//! Cross entropy over classes.

use super::lanes::{sum, sum_of_logs};
use super::pixels::{BLOCK, Channels, ChannelsMut, Pixels, scale, valid};
use super::{LabelOf, check, masked, mean_over, total, wide};
use crate::ops::cpu::Real;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use crate::readback;
use candle_core::{DType, Error, Result, Tensor};

/// `-log softmax(outputs)[label]`, the mean over valid pixels.
///
/// # Shapes
/// `outputs` `[B, n, ..]`, `label` `[B, 1, ..]`.
///
/// A label that is neither a class nor `ignore` is an error of the kernel. Of candle's primitives it makes a loss of NaN, since
/// looking would wait for the device: [`check_classes`] finds it then.
///
/// # Errors
/// Such a label; tensors whose shapes do not fit.
pub(crate) fn cross_entropy(outputs: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let outputs = wide(outputs)?;
    let label = label.to_dtype(outputs.dtype())?;
    only(apply(CrossEntropy { outputs, label, ignore })?)
}

#[derive(Clone)]
struct CrossEntropy {
    outputs: Tensor,
    label: Tensor,
    ignore: f32,
}

impl Step for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { outputs: f(&self.outputs)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        check(shapes, &self.outputs, &self.label, LabelOf::Pixels)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let (outputs, classes) = (&self.outputs, self.outputs.dim(1)?);
        let (label, mask) = masked(&self.label, outputs.dtype(), self.ignore)?;
        let class = label.clamp(0.0, (classes - 1) as f64)?.floor()?;
        // Infinite where a label is no class, and with it sum and count: their quotient is no number.
        let mask = (mask / label.eq(&class)?.to_dtype(outputs.dtype())?)?;
        let shifted = outputs.broadcast_sub(&outputs.detach().max_keepdim(1)?)?;
        let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
        let chosen = shifted.gather(&class.to_dtype(DType::U32)?, 1)?;
        Ok(vec![mean_over(&total(&((log_sum - chosen)? * &mask)?)?, &total(&mask)?)?])
    }
}

impl<T: Real> CpuKernel<T> for CrossEntropy {
    /// The number of valid pixels.
    type Saved = f64;

    fn forward(&self, _: Keep) -> Result<Passed<Self::Saved>> {
        let (pixels, ignore) = (Pixels::of_maps(&self.outputs, &self.label)?, T::of(self.ignore.into()));
        let (last, mut sum, mut count) = ((self.outputs.dim(1)? - 1) as f64, 0.0, 0.0);
        for block in pixels.map(&self.outputs, &self.label, |x: &Channels<T>, label| sums(x, label[0], ignore))? {
            let block = block.map_err(|wrong| no_class(wrong, last))?;
            (sum, count) = (sum + block.0, count + block.1);
        }
        let count = count.max(1.0);
        Ok((vec![Output::new(vec![T::of(sum / count)], ())], Some(count)))
    }

    fn backward(&self, count: f64, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(scale) = scale::<T>(&outputs, count)? else { return Ok(()) };
        let (pixels, ignore) = (Pixels::of_maps(&self.outputs, &self.label)?, T::of(self.ignore.into()));
        let write = |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>| {
            write_gradient(dx, x, label[0], ignore, scale)
        };
        grads.give_values(&self.outputs, pixels.gradient(&self.outputs, &self.label, write)?)
    }
}

/// Reads a label, and refuses what is neither one of so many classes nor `ignore`.
///
/// # Errors
/// The first such value.
pub(crate) fn check_classes(label: &Tensor, classes: usize, ignore: f32) -> Result<()> {
    let (last, ignore) = ((classes - 1) as f64, f64::from(ignore));
    let wrong = readback::numbers([label])?.into_iter().find(|v| *v != ignore && !is_class(*v, last));
    wrong.map_or(Ok(()), |wrong| Err(no_class(wrong, last)))
}

#[inline(always)]
fn is_class<T: Real>(value: T, last: T) -> bool {
    value >= T::zero() && value <= last && value.floor() == value
}

fn no_class(wrong: f64, last: f64) -> Error {
    Error::msg(format!(
        "label: expected classes 0 to {last} or 255, got {wrong} (raise the task's number of outputs, mark such pixels \
         255, and resize labels by their nearest pixel)"
    ))
}

vectorised_fn! {
    /// The sum over a block's valid pixels and their number, or a label that is no class.
    fn sums<T: Real>(x: &Channels<'_, T>, label: &[T], ignore: T) -> std::result::Result<(f64, f64), f64> {
        let last = T::of((x.len() - 1) as f64);
        if !label.iter().fold(true, |all, v| all & ((*v == ignore) | is_class(*v, last))) {
            let wrong = label.iter().find(|v| **v != ignore && !is_class(**v, last));
            return Err(wrong.map_or(f64::NAN, |v| candle_core::WithDType::to_f64(*v)));
        }
        let (highest, n) = (highest(x), label.len());
        let (mut partition, mut chosen) = ([T::zero(); BLOCK], [T::zero(); BLOCK]);
        for (class, x) in x.iter().enumerate() {
            let class = T::of(class as f64);
            let pixels = partition.iter_mut().zip(&mut chosen).zip(*x).zip(&highest).zip(label);
            for ((((partition, chosen), x), highest), label) in pixels {
                let score = *x - *highest;
                *partition += score.exponential();
                *chosen = if *label == class { score } else { *chosen };
            }
        }
        for ((partition, chosen), label) in partition.iter_mut().zip(&mut chosen).zip(label) {
            let valid = *label != ignore;
            *partition = if valid { *partition } else { T::one() };
            *chosen = if valid { *chosen } else { T::zero() };
        }
        Ok((sum_of_logs(&partition[..n]) - sum(&chosen[..n]), valid(label, ignore)))
    }
}

vectorised_fn! {
    /// `dx = (softmax(x) - one-hot(label)) scale` where the label is valid, and 0 elsewhere.
    fn write_gradient<T: Real>(dx: &mut ChannelsMut<'_, T>, x: &Channels<'_, T>, label: &[T], ignore: T, scale: T) {
        let highest = highest(x);
        let (mut partition, mut scales) = ([T::zero(); BLOCK], [T::zero(); BLOCK]);
        for (dx, x) in dx.iter_mut().zip(x) {
            for (((dx, partition), x), highest) in dx.iter_mut().zip(&mut partition).zip(*x).zip(&highest) {
                *dx = (*x - *highest).exponential();
                *partition += *dx;
            }
        }
        for ((partition, scales), label) in partition.iter_mut().zip(&mut scales).zip(label) {
            *scales = if *label == ignore { T::zero() } else { scale };
            *partition = *scales / *partition;
        }
        for (class, dx) in dx.iter_mut().enumerate() {
            let class = T::of(class as f64);
            for (((dx, by), scale), label) in dx.iter_mut().zip(&partition).zip(&scales).zip(label) {
                *dx = *dx * *by - if *label == class { *scale } else { T::zero() };
            }
        }
    }
}

/// The highest score of each pixel.
#[inline(always)]
fn highest<T: Real>(x: &Channels<T>) -> [T; BLOCK] {
    let mut highest = [T::neg_infinity(); BLOCK];
    for x in x {
        for (highest, x) in highest.iter_mut().zip(*x) {
            *highest = if *x > *highest { *x } else { *highest };
        }
    }
    highest
}
