//! The two steps of the Dynamic Task Filter: norming its taps, and the depth-wise convolution with them.
#![allow(unsafe_code)] // maps write their own parts of fresh memory

use super::blocks::Blocks;
use super::cpu::{Fresh, Parts, Real, by_float, is_fused, slice, values};
use super::filter_map::MapSize;
use super::shapes::Shapes;
use super::trace::Traced;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};

/// FilterNorm: each channel's k*k taps minus their mean, divided by their unbiased standard deviation + 1e-10, times a learned
/// scale, plus a learned shift.
///
/// # Shapes
/// `taps` `[b, r*k*k]` channel-major with k odd and at least 3, `scale` and `shift` `[r*k*k]`, result `[b, k*k, r]`: one row of
/// channels for each tap.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; a k that is even or below 3: its deviation would not exist.
pub fn filter_norm(taps: &Tensor, scale: &Tensor, shift: &Tensor, kernel: usize) -> Result<Tensor> {
    let shapes = Shapes::of("filter-norm", taps)?;
    let ([b, n], kk) = (shapes.sizes("taps", taps)?, shapes.taps(kernel, 3)?);
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
/// `y[b, y, x, c] = Σ_ij u[b, y + i - k/2, x + j - k/2, c] taps[b, i k + j, c]`.
///
/// # Shapes
/// `u` `[b, h, w, r]`, `taps` `[b, k*k, r]` with k odd, result `[b, h, w, r]`.
///
/// Candle's grouped convolution would run once for each of the b*r maps.
///
/// # Errors
/// Taps of other maps, channels or float type than u's; a k that is even.
pub fn depthwise_filter(u: &Tensor, taps: &Tensor) -> Result<Tensor> {
    let shapes = Shapes::of("depthwise-filter", u)?;
    let ([b, _, _, r], [_, kk, _]) = (shapes.sizes("u", u)?, shapes.sizes("taps", taps)?);
    let kernel = kk.isqrt();
    shapes.expect("taps", taps, &[b, shapes.taps(kernel, 1)?, r])?;
    if is_fused(u) { u.contiguous()?.apply_op2(&taps.contiguous()?, Traced(Depthwise)) } else { composed(u, taps) }
}

/// A sum of k*k shifted products.
fn composed(u: &Tensor, taps: &Tensor) -> Result<Tensor> {
    let (b, h, w, r) = u.dims4()?;
    let kernel = taps.dim(1)?.isqrt();
    let reach = kernel / 2;
    let padded = u.pad_with_zeros(1, reach, reach)?.pad_with_zeros(2, reach, reach)?;
    let product = |tap: usize| -> Result<Tensor> {
        let shifted = padded.narrow(1, tap / kernel, h)?.narrow(2, tap % kernel, w)?;
        shifted.broadcast_mul(&taps.narrow(1, tap, 1)?.reshape((b, 1, 1, r))?)
    };
    (1..kernel * kernel).try_fold(product(0)?, |sum, tap| sum + product(tap)?)
}

struct Depthwise;

/// The sizes that `u` and `taps` have.
fn sizes(u: &Shape, taps: &Shape) -> Result<MapSize> {
    let ((_, h, w, r), (_, kk, _)) = (u.dims4()?, taps.dims3()?);
    MapSize::new((h, w), r, kk.isqrt())
}

/// Calls `f` once with each map's number, in parallel.
fn for_maps(maps: usize, size: MapSize, f: impl Fn(usize) + Sync + Send) {
    Blocks::of_maps(maps, size.len()).for_each(|| (), |(), block| block.for_each(&f));
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-filter"
    }

    fn cpu_fwd(&self, u: &CpuStorage, lu: &Layout, t: &CpuStorage, lt: &Layout) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(u: &[T], taps: &[T], size: MapSize) -> Result<CpuStorage> {
            let (len, maps) = (size.len(), taps.len() / size.taps_len().max(1));
            let mut y = Fresh::of(maps * len);
            let out = y.parts();
            for_maps(maps, size, |i| {
                // SAFETY: `for_maps` calls this once for each map.
                let y = unsafe { out.at(i * len, len) };
                size.convolve(&u[i * len..][..len], &taps[i * size.taps_len()..][..size.taps_len()], y);
            });
            // SAFETY: the maps cover y, and `convolve` writes each.
            Ok(T::to_cpu_storage_owned(unsafe { y.written() }))
        }
        let size = sizes(lu.shape(), lt.shape())?;
        Ok((by_float!(u.dtype(), kernel(slice(u, lu)?, slice(t, lt)?, size))?, lu.shape().clone()))
    }

    fn bwd(&self, u: &Tensor, taps: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        fn kernel<T: Real>(u: &Tensor, taps: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            let size = sizes(u.shape(), taps.shape())?;
            let (us, ts, dys) = (values::<T>(u)?, values::<T>(taps)?, values::<T>(dy)?);
            let (us, ts, dys) = (&*us, &*ts, &*dys);
            let (len, taps_len) = (size.len(), size.taps_len());
            let mut dtaps = vec![T::zero(); if taps.track_op() { ts.len() } else { 0 }];
            let (gradients, mut du) = (Parts::of(&mut dtaps), Fresh::of(us.len()));
            let out = du.parts();
            for_maps(u.dims()[0], size, |i| {
                let dy = &dys[i * len..][..len];
                // SAFETY: `for_maps` calls this once for each map.
                let du = unsafe { out.at(i * len, len) };
                size.convolve_backward(dy, &ts[i * taps_len..][..taps_len], None, du);
                if taps.track_op() {
                    // SAFETY: as above.
                    let dtaps = unsafe { gradients.at(i * taps_len, taps_len) };
                    size.tap_gradients(&us[i * len..][..len], dy, dtaps);
                }
            });
            // SAFETY: the maps cover du, and `convolve_backward` writes each.
            let du = unsafe { du.written() };
            let dtaps = taps.track_op().then(|| Tensor::from_vec(dtaps, taps.shape(), taps.device())).transpose()?;
            Ok((Some(Tensor::from_vec(du, u.shape(), u.device())?), dtaps))
        }
        let dy = dy.contiguous()?;
        by_float!(u.dtype(), kernel(u, taps, &dy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn both_definitions_equal_candles_grouped_convolution() -> Result<()> {
        for (kernel, h, w) in [(3, 4, 6), (5, 4, 6), (5, 1, 2), (3, 1, 1), (7, 2, 9)] {
            let (u, taps) = (normal(1, &[2, h, w, 3])?, normal(2, &[2, kernel * kernel, 3])?);
            let maps = u.permute((0, 3, 1, 2))?.reshape((1, 6, h, w))?;
            let weights = taps.transpose(1, 2)?.reshape((6, 1, kernel, kernel))?;
            let want = maps.conv2d(&weights, kernel / 2, 1, 1, 6)?.reshape((2, 3, h, w))?.permute((0, 2, 3, 1))?;
            close(&depthwise_filter(&u, &taps)?, &want, 1e-12)?;
            close(&composed(&u, &taps)?, &want, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_both_definitions() -> Result<()> {
        for (filter, kernel) in
            [(depthwise_filter as fn(&Tensor, &Tensor) -> Result<Tensor>, 3), (depthwise_filter, 5), (composed, 3)]
        {
            let (u, taps) = (normal(1, &[2, 3, 2, 2])?, normal(2, &[2, kernel * kernel, 2])?);
            check(&[&u, &taps], |v| filter(&v[0], &v[1]))?;
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
