//! The mean absolute difference of vectors brought to unit length.

use super::l1::{mean_apart, pull};
use super::lanes::sum;
use super::pixels::{BLOCK, Channels, ChannelsMut, Pixels, scale, valid};
use super::{LabelOf, check, wide};
use crate::ops::cpu::Real;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// Added to the square of a length, which bounds the gradient at length 0.
const EPS: f64 = 1e-12;

/// `|n / sqrt(n·n + 1e-12) - label|`, the mean over valid values.
///
/// # Shapes
/// `outputs` and `label` `[B, c, ..]`.
pub(crate) fn normals_l1(outputs: &Tensor, label: &Tensor, ignore: f32) -> Result<Tensor> {
    let outputs = wide(outputs)?;
    let label = label.to_dtype(outputs.dtype())?;
    only(apply(NormalsL1 { outputs, label, ignore })?)
}

#[derive(Clone)]
struct NormalsL1 {
    outputs: Tensor,
    label: Tensor,
    ignore: f32,
}

impl Step for NormalsL1 {
    fn name(&self) -> &'static str {
        "normals-l1"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { outputs: f(&self.outputs)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        check(shapes, &self.outputs, &self.label, LabelOf::Channels)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let square = self.outputs.sqr()?.sum_keepdim(1)?;
        let unit = self.outputs.broadcast_div(&(square + EPS)?.sqrt()?)?;
        Ok(vec![mean_apart(&unit, &self.label, self.ignore)?])
    }
}

impl<T: Real> CpuKernel<T> for NormalsL1 {
    /// The number of valid values.
    type Saved = f64;

    fn forward(&self, _: Keep) -> Result<Passed<Self::Saved>> {
        let (pixels, ignore) = (Pixels::of_maps(&self.outputs, &self.label)?, T::of(self.ignore.into()));
        let blocks = pixels.map(&self.outputs, &self.label, |x: &Channels<T>, label| sums(x, label, ignore))?;
        let (sum, count) = blocks.into_iter().fold((0.0, 0.0), |all, block| (all.0 + block.0, all.1 + block.1));
        let count = f64::max(count, 1.0);
        Ok((vec![Output::new(vec![T::of(sum / count)], ())], Some(count)))
    }

    fn backward(&self, count: f64, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(scale) = scale::<T>(&outputs, count)? else { return Ok(()) };
        let (pixels, ignore) = (Pixels::of_maps(&self.outputs, &self.label)?, T::of(self.ignore.into()));
        let write =
            |dx: &mut ChannelsMut<T>, x: &Channels<T>, label: &Channels<T>| write_gradient(dx, x, label, ignore, scale);
        grads.give_values(&self.outputs, pixels.gradient(&self.outputs, &self.label, write)?)
    }
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
