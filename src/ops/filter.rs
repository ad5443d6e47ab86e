//! The two steps of the Dynamic Task Filter: norming its taps, and the depth-wise convolution with them.

use super::cpu::{Real, by_float, is_fused, slice, values};
use super::trace::Traced;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// FilterNorm: each channel's k*k taps minus their mean, divided by their unbiased standard deviation + 1e-10, times a learned
/// scale, plus a learned shift.
///
/// # Shapes
/// `taps` `[b, r*k*k]` channel-major, `scale` and `shift` `[r*k*k]`, result `[b, k*k, r]`: one row of channels for each tap.
pub fn filter_norm(taps: &Tensor, scale: &Tensor, shift: &Tensor, kernel: usize) -> Result<Tensor> {
    let (b, n) = taps.dims2()?;
    let kk = kernel * kernel;
    let taps = taps.reshape((b, n / kk, kk))?;
    let centred = taps.broadcast_sub(&taps.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.sum_keepdim(D::Minus1)? / (kk - 1) as f64)?.sqrt()?;
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
pub fn depthwise_filter(u: &Tensor, taps: &Tensor) -> Result<Tensor> {
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

/// The sizes of a convolution.
#[derive(Clone, Copy)]
struct Maps {
    h: usize,
    w: usize,
    r: usize,
    kernel: usize,
}

impl Maps {
    fn of(u: &Shape, taps: &Shape) -> Result<Self> {
        let ((_, h, w, r), (_, kk, _)) = (u.dims4()?, taps.dims3()?);
        Ok(Self { h, w, r, kernel: kk.isqrt() })
    }

    /// Calls `f(tap, at, from)` for each run of a map's row that a tap moves: places of its first values, and its length.
    fn for_runs(&self, tap: usize, mut f: impl FnMut(usize, usize, usize)) {
        let reach = self.kernel / 2;
        let (i, j) = (tap / self.kernel, tap % self.kernel);
        let left = reach.saturating_sub(j); // outputs left of it would read beyond the map
        let right = self.w.saturating_sub(j.saturating_sub(reach));
        for y in reach.saturating_sub(i)..self.h.min((self.h + reach).saturating_sub(i)) {
            if left < right {
                let (from_y, from_x) = (y + i - reach, left + j - reach);
                f((y * self.w + left) * self.r, (from_y * self.w + from_x) * self.r, (right - left) * self.r);
            }
        }
    }
}

impl CustomOp2 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise-filter"
    }

    fn cpu_fwd(&self, u: &CpuStorage, lu: &Layout, t: &CpuStorage, lt: &Layout) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(u: &[T], taps: &[T], maps: Maps) -> Result<CpuStorage> {
            Ok(T::to_cpu_storage_owned(convolve(u, taps, maps, Direction::Forward)))
        }
        let maps = Maps::of(lu.shape(), lt.shape())?;
        Ok((by_float!(u.dtype(), kernel(slice(u, lu)?, slice(t, lt)?, maps))?, lu.shape().clone()))
    }

    fn bwd(&self, u: &Tensor, taps: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        fn kernel<T: Real>(u: &Tensor, taps: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            let maps = Maps::of(u.shape(), taps.shape())?;
            let (us, ts, dys) = (values::<T>(u)?, values::<T>(taps)?, values::<T>(dy)?);
            let du = convolve(&dys, &ts, maps, Direction::Backward);
            let dt = taps.track_op().then(|| tap_gradients(&us, &dys, maps));
            let dt = dt.map(|dt| Tensor::from_vec(dt, taps.shape(), taps.device())).transpose()?;
            Ok((Some(Tensor::from_vec(du, u.shape(), u.device())?), dt))
        }
        let dy = dy.contiguous()?;
        by_float!(u.dtype(), kernel(u, taps, &dy))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// From maps to outputs.
    Forward,
    /// From the outputs' gradients to the maps': each tap moves values the other way.
    Backward,
}

fn convolve<T: Real>(u: &[T], taps: &[T], maps: Maps, direction: Direction) -> Vec<T> {
    let (size, kk, r) = (maps.h * maps.w * maps.r, maps.kernel * maps.kernel, maps.r);
    let mut out = vec![T::zero(); u.len()];
    out.par_chunks_mut(size).zip(u.par_chunks(size)).zip(taps.par_chunks(kk * r)).for_each(|((out, u), taps)| {
        for (tap, weights) in taps.chunks_exact(r).enumerate() {
            maps.for_runs(tap, |at, from, length| {
                let (at, from) = if direction == Direction::Forward { (at, from) } else { (from, at) };
                let pixels = out[at..at + length].chunks_exact_mut(r).zip(u[from..from + length].chunks_exact(r));
                for (out, u) in pixels {
                    out.iter_mut().zip(u).zip(weights).for_each(|((out, u), weight)| *out += *u * *weight);
                }
            });
        }
    });
    out
}

/// `dtaps[tap, c] = Σ dy u` over the pairs of places that the tap joins.
fn tap_gradients<T: Real>(u: &[T], dy: &[T], maps: Maps) -> Vec<T> {
    let (size, kk, r) = (maps.h * maps.w * maps.r, maps.kernel * maps.kernel, maps.r);
    let mut out = vec![T::zero(); u.len() / size * kk * r];
    out.par_chunks_mut(kk * r).zip(u.par_chunks(size)).zip(dy.par_chunks(size)).for_each(|((out, u), dy)| {
        for (tap, sums) in out.chunks_exact_mut(r).enumerate() {
            maps.for_runs(tap, |at, from, length| {
                let pixels = dy[at..at + length].chunks_exact(r).zip(u[from..from + length].chunks_exact(r));
                for (dy, u) in pixels {
                    sums.iter_mut().zip(dy).zip(u).for_each(|((sum, dy), u)| *sum += *dy * *u);
                }
            });
        }
    });
    out
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
    fn normed_taps_have_mean_zero_and_unbiased_deviation_one() -> Result<()> {
        let (one, zero) = (normal(2, &[18])?.ones_like()?, normal(2, &[18])?.zeros_like()?);
        let taps = filter_norm(&normal(1, &[2, 18])?, &one, &zero, 3)?;
        assert!(taps.mean(1)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
        close(&(taps.sqr()?.sum(1)? / 8.)?, &normal(1, &[2, 2])?.ones_like()?, 1e-8)
    }
}
