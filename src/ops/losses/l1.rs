//! The mean absolute difference.

use super::lanes::sum;
use super::pixels::{BLOCK, Channels, ChannelsMut, PixelMean, Pixels, valid};
use super::{LabelOf, absolute, check, fuses, masked, mean_over, total, wide};
use crate::ops::cpu::{Real, by_float};
use crate::ops::simd::vectorised_fn;
use crate::ops::trace::{self, Pass};
use candle_core::{Result, Tensor};

/// `|outputs - label|`, the mean over valid values.
///
/// # Shapes
/// `outputs` and `label` have the same.
pub(crate) fn l1(outputs: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    check("l1", outputs, label, LabelOf::Channels)?;
    let outputs = wide(outputs)?;
    if fuses(&outputs, label) {
        by_float!(outputs.dtype(), fused(&outputs.contiguous()?, label, ignore))
    } else {
        composed(&outputs, label, ignore)
    }
}

pub(super) fn composed(x: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let (label, mask) = masked(label, x.dtype(), ignore)?;
    mean_over(&total(&(absolute(&(x - label)?)? * &mask)?)?, &total(&mask)?)
}

fn fused<T: Real>(x: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let _op = trace::op("l1", Pass::Forward).moves(|| trace::bytes([x, label]));
    let (label, pixels) = (label.to_dtype(T::DTYPE)?.contiguous()?, Pixels::of_values(x));
    let ignore = T::of(ignore.into());
    let blocks = pixels.map(x, &label, |x, label| sums(x[0], label[0], ignore))?;
    let (sum, count) = blocks.into_iter().fold((0.0, 0.0), |all, block| (all.0 + block.0, all.1 + block.1));
    let gradient = move |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>, scale: T| {
        write_gradient(dx[0], x[0], label[0], ignore, scale)
    };
    let count = f64::max(count, 1.0);
    x.apply_op1(PixelMean { name: "l1", value: T::of(sum / count), count, pixels, label, gradient })
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
