//! Average pooling over the tokens of a map.

use super::cpu::{Real, by_float, is_fused, slice, values};
use super::trace::Traced;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// The mean over a map's tokens: `[b, n, c]` to `[b, c]`.
///
/// Candle reduces a dimension that is not the last value by value; this adds whole rows.
pub fn mean_tokens(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) { x.contiguous()?.apply_op1(Traced(MeanTokens)) } else { x.mean(1) }
}

struct MeanTokens;

impl CustomOp1 for MeanTokens {
    fn name(&self) -> &'static str {
        "mean-tokens"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(x: &[T], (b, n, c): (usize, usize, usize)) -> Result<CpuStorage> {
            let mut means = vec![T::zero(); b * c];
            means.par_chunks_mut(c).zip(x.par_chunks(n * c)).for_each(|(mean, map)| {
                for row in map.chunks_exact(c) {
                    mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += *x);
                }
                mean.iter_mut().for_each(|mean| *mean /= T::of(n as f64));
            });
            Ok(T::to_cpu_storage_owned(means))
        }
        let dims = layout.shape().dims3()?;
        Ok((by_float!(x.dtype(), kernel(slice(x, layout)?, dims))?, (dims.0, dims.2).into()))
    }

    /// `dx = dy / n` for every token.
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        fn kernel<T: Real>(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
            let (_, n, c) = x.dims3()?;
            let dys = values::<T>(dy)?;
            let dys = &*dys;
            let mut dx = vec![T::zero(); x.elem_count()];
            dx.par_chunks_mut(n * c).zip(dys.par_chunks(c)).for_each(|(map, dy)| {
                for row in map.chunks_exact_mut(c) {
                    row.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = *dy / T::of(n as f64));
                }
            });
            Tensor::from_vec(dx, x.shape(), x.device())
        }
        let dy = dy.contiguous()?;
        by_float!(x.dtype(), kernel(x, &dy)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn equals_candles_mean_and_has_its_gradient() -> Result<()> {
        let x = normal(1, &[3, 5, 4])?;
        close(&mean_tokens(&x)?, &x.mean(1)?, 1e-14)?;
        check(&[&x], |v| mean_tokens(&v[0]))
    }
}
