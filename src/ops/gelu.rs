//! The exact Gaussian error linear unit.
#![allow(unsafe_code)] // registers are read and written by pointers

use super::cpu::simd;
use super::cpu::{Place, Real, for_rows, values};
use super::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use super::shapes::Shapes;
use candle_core::{Result, Tensor};
use pulp::{Simd, WithSimd};

/// The exact Gaussian error linear unit of each value.
///
/// `gelu(x) = x Φ(x) = x (1 + erf(x / √2)) / 2`
///
/// Candle's own `gelu_erf` has a backward whose constant is rounded to six digits; this one's is exact.
///
/// # Errors
/// Values that are no floats; a device without room for the result.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    only(apply(Gelu(x.clone()))?)
}

#[derive(Clone)]
struct Gelu(Tensor);

impl Step for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        f(&self.0).map(Self)
    }

    fn check(&self, _: Shapes) -> Result<()> {
        Ok(())
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let x = &self.0;
        let phi = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? * 0.5)? + 0.5;
        Ok(vec![(x * phi?)?])
    }
}

impl<T: Real> CpuKernel<T> for Gelu {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let x = values::<T>(&self.0)?;
        let mut y = vec![T::zero(); x.len()];
        let x = &*x;
        for_rows(&mut y, 1, |first, y| forward(&x[first..], y));
        Ok((vec![Output::new(y, self.0.shape())], Some(())))
    }

    /// `dx = dy (Φ(x) + x φ(x))`.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (x, mut dx) = (values::<T>(&self.0)?, values::<T>(dy)?.to_vec());
        let x = &*x;
        for_rows(&mut dx, 1, |first, dx| backward(&x[first..], dx));
        grads.give_values(&self.0, dx)
    }
}

/// `y = gelu(x)` for slices.
pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
    let from = Some(&x[..y.len()]);
    pulp::Arch::new().dispatch(Slices { from, shared: None, sum: None, y });
}

/// `x = gelu(x + shared)` for slices; all of `sum` receives `x + shared`.
pub(super) fn in_place<T: Real>(shared: Option<&[T]>, sum: Option<&mut [impl Place<T>]>, x: &mut [T]) {
    let len = x.len();
    let shared = shared.map(|shared| &shared[..len]);
    assert!(sum.as_ref().is_none_or(|sum| sum.len() == len), "a sum of as many values");
    let sum = sum.map(|sum| sum.as_mut_ptr().cast());
    pulp::Arch::new().dispatch(Slices { from: None, shared, sum, y: x });
}

/// `sum = from + shared` and `y = gelu(sum)`, all of one length; without `from`, y holds it.
struct Slices<'a, T> {
    from: Option<&'a [T]>,
    shared: Option<&'a [T]>,
    /// As many places as y has.
    sum: Option<*mut T>,
    y: &'a mut [T],
}

impl<T: Real> WithSimd for Slices<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (all, lanes) = (|value: f64| T::splat(simd, T::of(value)), T::lanes::<S>());
        for (i, y) in self.y.chunks_mut(lanes).enumerate() {
            let (first, count) = (i * lanes, y.len());
            // SAFETY: `y`, and what lies as far into the others, is `count` places: `forward` and `in_place` make all of one length.
            unsafe {
                let from = self.from.map_or(y.as_ptr(), |from| from.as_ptr().add(first));
                let mut before = T::load(simd, from, count);
                if let Some(shared) = self.shared {
                    before = T::plus(simd, before, T::load(simd, shared.as_ptr().add(first), count));
                }
                if let Some(sum) = self.sum {
                    T::store(simd, sum.add(first), count, before);
                }
                let erf = T::erf_of(simd, T::times(simd, before, all(std::f64::consts::FRAC_1_SQRT_2)));
                let half = T::times(simd, before, all(0.5));
                T::store(simd, y.as_mut_ptr(), count, T::multiply_add(simd, half, erf, half));
            }
        }
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
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradient_of_both_definitions() -> Result<()> {
        let x = Tensor::new(&[-1.0f64, 0.0, 1.0, 3.0], &candle_core::Device::Cpu)?;
        let want = Tensor::new(
            &[-0.158_655_253_931_457_07, 0.0, 0.841_344_746_068_542_9, 2.995_950_305_911_014_6],
            x.device(),
        )?;
        for definition in Definition::ALL {
            close(&definition.run(|| gelu(&x))?, &want, 1e-11)?;
            check(&[&normal(1, &[3, 4])?], |v| definition.run(|| gelu(&v[0])))?;
        }
        Ok(())
    }

    #[test]
    fn in_place_it_adds_what_is_shared_and_keeps_the_sum() -> Result<()> {
        let (x, shared) = (normal(1, &[37])?, normal(2, &[37])?);
        let (mut values, mut sum) = (x.to_vec1::<f64>()?, vec![0.0; 37]);
        in_place(Some(&shared.to_vec1()?), Some(&mut sum), &mut values);
        let want = (x + shared)?;
        close(&Tensor::new(sum, want.device())?, &want, 1e-15)?;
        close(&Tensor::new(values, want.device())?, &gelu(&want)?, 1e-15)
    }

    #[test]
    fn single_precision_is_close_to_double() -> Result<()> {
        let x = (normal(1, &[4000])? * 3.0)?;
        close(&gelu(&x.to_dtype(candle_core::DType::F32)?)?, &gelu(&x)?, 1e-6)
    }
}
