//! Mixing two features by one learned share.
#![allow(unsafe_code)] // blocks of values write their own parts of the gradients

use super::blocks::Blocks;
use super::cpu::{Parts, Real, by_float, for_rows, is_fused, values};
use super::segment::{self, Checkpoint, Gradients, Keep, Output, Passed, Segment};
use super::simd;
use candle_core::{Result, Tensor, WithDType};

/// `y = x + g (z - x)`, g one number.
///
/// # Shapes
/// `x` and `z` alike, `share` g `[1]`.
///
/// The gradient of g is one sum over all values, most of which cancel: the fused step takes it in f64.
pub fn mix(x: &Tensor, z: &Tensor, share: &Tensor) -> Result<Tensor> {
    if !is_fused(x) {
        return composed(x, z, share);
    }
    let step = Mix { x: x.contiguous()?, z: z.contiguous()?, share: share.contiguous()? };
    segment::only(by_float!(x.dtype(), run(step))?)
}

fn composed(x: &Tensor, z: &Tensor, share: &Tensor) -> Result<Tensor> {
    x + (z - x)?.broadcast_mul(share)?
}

fn run<T: Real>(step: Mix) -> Result<Vec<Tensor>> {
    segment::run::<T, _>(step, Checkpoint::Off)
}

struct Mix {
    x: Tensor,
    z: Tensor,
    share: Tensor,
}

fn wide<T: WithDType>(value: &T) -> f64 {
    value.to_f64()
}

/// Values that are worked on together.
const ROW: usize = 64;

impl<T: Real> Segment<T> for Mix {
    type Saved = ();

    fn name(&self) -> &'static str {
        "mix"
    }

    fn inputs(&self) -> Vec<&Tensor> {
        vec![&self.x, &self.z, &self.share]
    }

    fn forward(&self, _: Keep) -> Result<Passed<T, ()>> {
        let (x, z, g) = (values::<T>(&self.x)?, values::<T>(&self.z)?, values::<T>(&self.share)?[0]);
        let mut y = vec![T::zero(); x.len()];
        for_rows(&mut y, 1, |first, y| {
            let (x, z) = (&x[first..][..y.len()], &z[first..][..y.len()]);
            simd::vectorised(|| y.iter_mut().zip(x).zip(z).for_each(|((y, x), z)| *y = *x + (*z - *x) * g));
        });
        Ok((vec![Output::new(y, self.x.shape())], Some(())))
    }

    /// `dx = (1 - g) dy`, `dz = g dy`, `dg = Σ dy (z - x)`.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (x, z, g) = (values::<T>(&self.x)?, values::<T>(&self.z)?, values::<T>(&self.share)?[0]);
        let dy = values::<T>(dy)?;
        let (mut dx, mut dz) = (vec![T::zero(); x.len()], vec![T::zero(); x.len()]);
        let (to_x, to_z) = (Parts::of(&mut dx), Parts::of(&mut dz));
        let sum = Blocks::of(x.len().div_ceil(ROW), 1).sum(
            || 0.0,
            |sum: &mut f64, block| {
                let (start, end) = (block.start * ROW, x.len().min(block.end * ROW));
                let (x, z, dy) = (&x[start..end], &z[start..end], &dy[start..end]);
                // SAFETY: each value is in one block.
                let (dx, dz) = unsafe { (to_x.at(start, end - start), to_z.at(start, end - start)) };
                simd::vectorised(|| {
                    dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = *dy * (T::one() - g));
                    dz.iter_mut().zip(dy).for_each(|(dz, dy)| *dz = *dy * g);
                });
                *sum += dy.iter().zip(z.iter().zip(x)).map(|(dy, (z, x))| wide(dy) * (wide(z) - wide(x))).sum::<f64>();
            },
            |sum, other| *sum += other,
        );
        grads.give_values(&self.x, dx)?;
        grads.give_values(&self.z, dz)?;
        grads.give_values(&self.share, vec![T::of(sum)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients_of_both_definitions() -> Result<()> {
        let inputs = [normal(1, &[3, 5, 7])?, normal(2, &[3, 5, 7])?, normal(3, &[1])?];
        close(&mix(&inputs[0], &inputs[1], &inputs[2])?, &composed(&inputs[0], &inputs[1], &inputs[2])?, 1e-12)?;
        check(&inputs.each_ref(), |v| mix(&v[0], &v[1], &v[2]))?;
        check(&inputs.each_ref(), |v| composed(&v[0], &v[1], &v[2]))
    }
}
