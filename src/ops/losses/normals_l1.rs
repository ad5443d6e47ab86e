//! The mean absolute difference of vectors brought to unit length.

use super::l1::{self, pull};
use super::lanes::sum;
use super::pixels::{BLOCK, Channels, ChannelsMut, PixelMean, Pixels, valid};
use super::{LabelOf, check, fuses, wide};
use crate::ops::cpu::{Real, by_float};
use crate::ops::simd::vectorised_fn;
use crate::ops::trace::{self, Pass};
use candle_core::{Result, Tensor};

/// Added to the square of a length, which bounds the gradient at length 0.
const EPS: f64 = 1e-12;

/// `|n / sqrt(n·n + 1e-12) - label|`, the mean over valid values.
///
/// # Shapes
/// `outputs` and `label` `[B, c, ..]`.
pub(crate) fn normals_l1(outputs: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    check("normals-l1", outputs, label, LabelOf::Channels)?;
    let outputs = wide(outputs)?;
    if fuses(&outputs, label) {
        by_float!(outputs.dtype(), fused(&outputs.contiguous()?, label, ignore))
    } else {
        composed(&outputs, label, ignore)
    }
}

pub(super) fn composed(x: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let square = x.sqr()?.sum_keepdim(1)?;
    l1::composed(&x.broadcast_div(&(square + EPS)?.sqrt()?)?, label, ignore)
}

fn fused<T: Real>(x: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let _op = trace::op("normals-l1", Pass::Forward).moves(|| trace::bytes([x, label]));
    let (label, pixels) = (label.to_dtype(T::DTYPE)?.contiguous()?, Pixels::of_maps(x, label)?);
    let ignore = T::of(ignore.into());
    let blocks = pixels.map(x, &label, |x, label| sums(x, label, ignore))?;
    let (sum, count) = blocks.into_iter().fold((0.0, 0.0), |all, block| (all.0 + block.0, all.1 + block.1));
    let gradient = move |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>, scale: T| {
        write_gradient(dx, x, label, ignore, scale)
    };
    let count = f64::max(count, 1.0);
    x.apply_op1(PixelMean { name: "normals-l1", value: T::of(sum / count), count, pixels, label, gradient })
}

vectorised_fn! {
    /// The sum over a block's valid values, and their number.
    fn sums<T: Real>(x: &Channels<'_, T>, label: &Channels<'_, T>, ignore: T) -> (f64, f64) {
        let (lengths, mut apart) = (lengths(x), [T::zero(); BLOCK]);
        for (x, label) in x.iter().zip(label) {
            for (((apart, x), length), label) in apart.iter_mut().zip(*x).zip(&lengths).zip(*label) {
                *apart += if *label == ignore { T::zero() } else { (*x / *length - *label).abs() };
            }
        }
        (sum(&apart[..x[0].len()]), label.iter().map(|label| valid(label, ignore)).sum())
    }
}

vectorised_fn! {
    /// With u the unit vector and s the signs of `u - label`: `dn = (s - u (u·s)) scale / |n|`.
    fn write_gradient<T: Real>(dx: &mut ChannelsMut<'_, T>, x: &Channels<'_, T>, label: &Channels<'_, T>, ignore: T, scale: T) {
        let (lengths, mut along) = (lengths(x), [T::zero(); BLOCK]);
        for ((dx, x), label) in dx.iter_mut().zip(x).zip(label) {
            let pixels = dx.iter_mut().zip(&mut along).zip(*x).zip(&lengths).zip(*label);
            for ((((dx, along), x), length), label) in pixels {
                let unit = *x / *length;
                *dx = pull(unit, *label, ignore);
                *along += *dx * unit;
            }
        }
        for (dx, x) in dx.iter_mut().zip(x) {
            for (((dx, along), x), length) in dx.iter_mut().zip(&along).zip(*x).zip(&lengths) {
                *dx = (*dx - *x / *length * *along) * scale / *length;
            }
        }
    }
}

/// `sqrt(n·n + 1e-12)` of each pixel.
#[inline(always)]
fn lengths<T: Real>(x: &Channels<T>) -> [T; BLOCK] {
    let mut lengths = [T::of(EPS); BLOCK];
    for x in x {
        for (length, x) in lengths.iter_mut().zip(*x) {
            *length += *x * *x;
        }
    }
    for length in &mut lengths {
        *length = length.sqrt();
    }
    lengths
}
