//! The two steps of the Dynamic Task Filter: norming its taps, and the depth-wise convolution with them.
#![allow(unsafe_code)] // maps write their own parts of fresh memory

use super::map::MapSize;
use crate::ops::cpu::{Blocks, Fresh, Parts, Real, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{D, Result, Tensor};

/// FilterNorm: each channel's k*k taps minus their mean, divided by their unbiased standard deviation + 1e-10, times a learned
/// scale, plus a learned shift.
///
/// # Shapes
/// `taps` `[b, r*k*k]` channel-major with k odd, at least 3, `scale` and `shift` `[r*k*k]`, result `[b, k*k, r]`: one row of channels
/// for each tap.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; a k that is even or below 3: its deviation would not exist.
pub fn filter_norm(taps: &Tensor, scale: &Tensor, shift: &Tensor, kernel_size: usize) -> Result<Tensor> {
    let shapes = Shapes::of("filter-norm", taps)?;
    let ([b, n], kk) = (shapes.sizes("taps", taps)?, shapes.taps(kernel_size, 3)?);
    shapes.times("taps of all channels", n, kk)?;
    shapes.expect("a scale", scale, &[n])?;
    shapes.expect("a shift", shift, &[n])?;
    let taps = taps.reshape((b, n / kk, kk))?;
    let centred = taps.broadcast_sub(&taps.mean_keepdim(D::Minus1)?)?;
    let variance = (centred.sqr()?.sum_keepdim(D::Minus1)? / (kk - 1) as f64)?;
    let deviation = variance.maximum(f64::from(f32::MIN_POSITIVE))?.sqrt()?; // a root has no slope at 0
    let normed = centred.broadcast_div(&(deviation + 1e-10)?)?.reshape((b, n))?;
    normed.broadcast_mul(scale)?.broadcast_add(shift)?.reshape((b, n / kk, kk))?.transpose(1, 2)?.contiguous()
}

/// Depth-wise convolution, stride 1 and zero padding, every map with its own filter:
/// `out[b, y, x, c] = Σ_ij u[b, y + i - k/2, x + j - k/2, c] taps[b, i k + j, c]`.
///
/// # Shapes
/// `u` `[b, h, w, r]`, `taps` `[b, k*k, r]` with k odd, result `[b, h, w, r]`.
///
/// Candle's grouped convolution would run once for each of the b*r maps.
///
/// # Errors
/// Taps of other maps, channels or float type than u's; a k that is even.
pub fn depthwise_filter(u: &Tensor, taps: &Tensor) -> Result<Tensor> {
    only(apply(Depthwise { u: u.clone(), taps: taps.clone() })?)
}

#[derive(Clone)]
struct Depthwise {
    u: Tensor,
    taps: Tensor,
}

impl Depthwise {
    fn size(&self) -> Result<MapSize> {
        let ((_, h, w, r), (_, kk, _)) = (self.u.dims4()?, self.taps.dims3()?);
        MapSize::new((h, w), r, kk.isqrt())
    }
}

impl Step for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-filter"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { u: f(&self.u)?, taps: f(&self.taps)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([b, _, _, r], [_, kk, _]) = (shapes.sizes("u", &self.u)?, shapes.sizes("taps", &self.taps)?);
        shapes.expect("taps", &self.taps, &[b, shapes.taps(kk.isqrt(), 1)?, r])
    }

    /// A sum of k*k shifted products.
    fn composed(&self) -> Result<Vec<Tensor>> {
        let ((b, h, w, r), kernel_size) = (self.u.dims4()?, self.taps.dim(1)?.isqrt());
        let reach = kernel_size / 2;
        let padded = self.u.pad_with_zeros(1, reach, reach)?.pad_with_zeros(2, reach, reach)?;
        let product = |tap: usize| -> Result<Tensor> {
            let shifted = padded.narrow(1, tap / kernel_size, h)?.narrow(2, tap % kernel_size, w)?;
            shifted.broadcast_mul(&self.taps.narrow(1, tap, 1)?.reshape((b, 1, 1, r))?)
        };
        Ok(vec![(1..kernel_size * kernel_size).try_fold(product(0)?, |sum, tap| sum + product(tap)?)?])
    }
}

/// Calls `f` once with each map's number, in parallel.
fn for_maps(maps: usize, size: MapSize, f: impl Fn(usize) + Sync + Send) {
    Blocks::of_maps(maps, size.len()).for_each(|| (), |(), block| block.for_each(&f));
}

impl<T: Real> CpuKernel<T> for Depthwise {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (u, taps, size) = (values::<T>(&self.u)?, values::<T>(&self.taps)?, self.size()?);
        let (u, taps, len) = (&*u, &*taps, size.len());
        let mut y = Fresh::of(u.len());
        let out = y.parts();
        for_maps(self.u.dim(0)?, size, |i| {
            // SAFETY: `for_maps` calls this once for each map.
            let y = unsafe { out.at(i * len, len) };
            size.convolve(&u[i * len..][..len], &taps[i * size.taps_len()..][..size.taps_len()], y);
        });
        // SAFETY: the maps cover y, and `convolve` writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, self.u.shape())], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (u, taps, dy, size) = (values::<T>(&self.u)?, values::<T>(&self.taps)?, values::<T>(dy)?, self.size()?);
        let (u, taps, dy, len, taps_len) = (&*u, &*taps, &*dy, size.len(), size.taps_len());
        let trains = self.taps.track_op();
        let mut dtaps = vec![T::zero(); if trains { taps.len() } else { 0 }];
        let (gradients, mut du) = (Parts::of(&mut dtaps), Fresh::of(u.len()));
        let out = du.parts();
        for_maps(self.u.dim(0)?, size, |i| {
            let dy = &dy[i * len..][..len];
            // SAFETY: `for_maps` calls this once for each map.
            let du = unsafe { out.at(i * len, len) };
            size.convolve_backward(dy, &taps[i * taps_len..][..taps_len], None, du);
            if trains {
                // SAFETY: as above.
                let dtaps = unsafe { gradients.at(i * taps_len, taps_len) };
                size.tap_gradients(&u[i * len..][..len], dy, dtaps);
            }
        });
        // SAFETY: the maps cover du, and `convolve_backward` writes each.
        let du = unsafe { du.written() };
        grads.give_values(&self.u, du)?;
        grads.give_values(&self.taps, dtaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn both_definitions_equal_candles_grouped_convolution() -> Result<()> {
        for (kernel_size, h, w) in [(3, 4, 6), (5, 4, 6), (5, 1, 2), (3, 1, 1), (7, 2, 9)] {
            let (u, taps) = (normal(1, &[2, h, w, 3])?, normal(2, &[2, kernel_size * kernel_size, 3])?);
            let maps = u.permute((0, 3, 1, 2))?.reshape((1, 6, h, w))?;
            let weights = taps.transpose(1, 2)?.reshape((6, 1, kernel_size, kernel_size))?;
            let want = maps.conv2d(&weights, kernel_size / 2, 1, 1, 6)?.reshape((2, 3, h, w))?.permute((0, 2, 3, 1))?;
            for definition in Definition::ALL {
                close(&definition.run(|| depthwise_filter(&u, &taps))?, &want, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_of_both_definitions() -> Result<()> {
        for (definition, kernel_size) in [(Definition::Fused, 3), (Definition::Fused, 5), (Definition::Composed, 3)] {
            let (u, taps) = (normal(1, &[2, 3, 2, 2])?, normal(2, &[2, kernel_size * kernel_size, 2])?);
            check(&[&u, &taps], |v| definition.run(|| depthwise_filter(&v[0], &v[1])))?;
        }
        let (taps, scale, shift) = (normal(1, &[2, 18])?, normal(2, &[18])?, normal(3, &[18])?);
        check(&[&taps, &scale, &shift], |v| filter_norm(&v[0], &v[1], &v[2], 3))
    }

    #[test]
    fn taps_that_are_all_the_same_have_finite_gradients() -> Result<()> {
        let (same, scale) = (candle_core::Var::ones((1, 9), candle_core::DType::F32, &candle_core::Device::Cpu)?, 3f64);
        let (scale, shift) = ((same.ones_like()?.squeeze(0)? * scale)?, same.zeros_like()?.squeeze(0)?);
        let grads = filter_norm(&same, &scale, &shift, 3)?.sqr()?.sum_all()?.backward()?;
        assert!(grads.get(&same).unwrap().to_vec2::<f32>()?[0].iter().all(|v| v.is_finite()));
        Ok(())
    }

    #[test]
    fn normed_taps_have_mean_zero_and_unbiased_deviation_one() -> Result<()> {
        let (one, zero) = (normal(2, &[18])?.ones_like()?, normal(2, &[18])?.zeros_like()?);
        let taps = filter_norm(&normal(1, &[2, 18])?, &one, &zero, 3)?;
        assert!(taps.mean(1)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
        close(&(taps.sqr()?.sum(1)? / 8.)?, &normal(1, &[2, 2])?.ones_like()?, 1e-8)
    }
}
