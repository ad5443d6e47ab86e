//! The exact Gaussian error linear unit.
#![allow(unsafe_code)] // registers are read and written by pointers

use super::cpu::{Real, by_float, for_rows, is_fused, slice, values};
use super::simd;
use super::trace::Traced;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

/// `gelu(x) = x Φ(x) = x (1 + erf(x / √2)) / 2`, for each value.
///
/// Candle's own `gelu_erf` has a backward whose constant is rounded to six digits; this one's is exact.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) { x.contiguous()?.apply_op1(Traced(Gelu)) } else { composed(x) }
}

fn composed(x: &Tensor) -> Result<Tensor> {
    let phi = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? * 0.5)? + 0.5;
    x * phi?
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(x: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
            let x = slice::<T>(x, layout)?;
            let mut y = vec![T::zero(); x.len()];
            for_rows(&mut y, 1, |first, y| {
                forward(&x[first..], y);
            });
            Ok(T::to_cpu_storage_owned(y))
        }
        Ok((by_float!(x.dtype(), kernel(x, layout))?, layout.shape().clone()))
    }

    /// `dx = dy (Φ(x) + x φ(x))`.
    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        fn kernel<T: Real>(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
            let (xs, dys) = (values::<T>(x)?, values::<T>(dy)?);
            let (xs, dys) = (&*xs, &*dys);
            let mut dx = vec![T::zero(); xs.len()];
            for_rows(&mut dx, 1, |first, dx| {
                dx.copy_from_slice(&dys[first..][..dx.len()]);
                backward(&xs[first..], dx);
            });
            Tensor::from_vec(dx, x.shape(), x.device())
        }
        let dy = dy.contiguous()?;
        by_float!(x.dtype(), kernel(x, &dy)).map(Some)
    }
}

/// `y = gelu(x)` for slices.
pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
    pulp::Arch::new().dispatch(Values { x: &x[..y.len()], y });
}

struct Values<'a, T> {
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Real> WithSimd for Values<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = T::lanes::<S>();
        let whole = self.y.len() / lanes * lanes;
        let ((x, x_rest), (y, y_rest)) = (self.x.split_at(whole), self.y.split_at_mut(whole));
        for (x, y) in x.chunks_exact(lanes).zip(y.chunks_exact_mut(lanes)) {
            register(simd, x, y, lanes);
        }
        register(simd, x_rest, y_rest, x_rest.len());
    }
}

/// `y = gelu(x)` for up to a register's values.
#[inline(always)]
fn register<T: Real, S: Simd>(simd: S, x: &[T], y: &mut [T], count: usize) {
    let all = |value: f64| T::splat(simd, T::of(value));
    assert!(count <= x.len() && count <= y.len());
    // SAFETY: both hold `count` values.
    unsafe {
        let x = T::load(simd, x.as_ptr(), count);
        let erf = T::erf_of(simd, T::times(simd, x, all(std::f64::consts::FRAC_1_SQRT_2)));
        let half = T::times(simd, x, all(0.5));
        T::store(simd, y.as_mut_ptr(), count, T::multiply_add(simd, half, erf, half));
    }
}

simd::vectorised_fn! {
    /// `d *= gelu'(x)` for slices: a gradient of GELU's values to one of what it was taken of.
    pub(super) fn backward<T: Real>(x: &[T], d: &mut [T]) {
        for (d, x) in d.iter_mut().zip(x) {
            *d *= slope(*x);
        }
    }
}

/// `gelu(x)`, to be inlined into a vectorised loop.
#[inline(always)]
pub(super) fn value<T: Real>(x: T) -> T {
    x * phi(x)
}

/// `gelu'(x)`, to be inlined into a vectorised loop.
#[inline(always)]
pub(super) fn slope<T: Real>(x: T) -> T {
    let density = T::of(0.398_942_280_401_432_7); // 1 / sqrt(2π)
    phi(x) + x * density * (x * x * T::of(-0.5)).exponential()
}

/// The standard normal's distribution function.
#[inline(always)]
fn phi<T: Real>(x: T) -> T {
    (T::one() + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()) * T::of(0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradient_of_both_definitions() -> Result<()> {
        let x = Tensor::new(&[-1.0f64, 0.0, 1.0, 3.0], &candle_core::Device::Cpu)?;
        let want = Tensor::new(
            &[-0.158_655_253_931_457_07, 0.0, 0.841_344_746_068_542_9, 2.995_950_305_911_014_6],
            x.device(),
        )?;
        close(&gelu(&x)?, &want, 1e-11)?;
        close(&composed(&x)?, &want, 1e-11)?;
        check(&[&normal(1, &[3, 4])?], |v| gelu(&v[0]))?;
        check(&[&normal(1, &[3, 4])?], |v| composed(&v[0]))
    }

    #[test]
    fn single_precision_is_close_to_double() -> Result<()> {
        let x = (normal(1, &[4000])? * 3.0)?;
        close(&gelu(&x.to_dtype(candle_core::DType::F32)?)?, &gelu(&x)?, 1e-6)
    }
}
