//! The sum of squares of a tensor.

use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::cpu::{Real, values};
use crate::ops::graph::{Definition, Runs};

use crate::ops::graph::trace::{self, Pass};
use candle_core::{D, DType, Device, Result, Tensor};
use rayon::prelude::*;

/// `Σ x²`, a scalar where the values are, to be read with others; the same for any number of threads. The kernel gives f64; candle's
/// primitives f32, unless the values are f64: not every device has that.
pub(crate) fn square_sum(x: &Tensor) -> Result<Tensor> {
    match Runs::of(x) {
        Runs::CpuF32 => Tensor::new(fused::<f32>(x)?, &Device::Cpu),
        Runs::CpuF64 => Tensor::new(fused::<f64>(x)?, &Device::Cpu),
        Runs::Composed => composed(x),
    }
}

/// Dimension by dimension: one sum over millions of values is off in f32.
fn composed(x: &Tensor) -> Result<Tensor> {
    let x = if x.dtype() == DType::F64 { x.clone() } else { x.to_dtype(DType::F32)? };
    (0..x.rank()).try_fold(x.sqr()?, |sum, _| sum.sum(D::Minus1))
}

/// Values a thread takes at a time.
const BLOCK: usize = 1 << 14;

fn fused<T: Real>(x: &Tensor) -> Result<f64> {
    let _op = trace::op("square-sum", Pass::Update, Definition::Fused).moves(|| trace::bytes([x]));
    let x = values::<T>(x)?;
    if x.len() <= BLOCK {
        return Ok(block(&x));
    }
    let sums: Vec<f64> = x.par_chunks(BLOCK).map(block).collect();
    Ok(sums.into_iter().sum())
}

vectorised_fn! {
    /// Many sums side by side: the inner loop is long enough that the compiler keeps it one and takes it in vector registers.
    fn block<T: Real>(x: &[T]) -> f64 {
        const LANES: usize = 128;
        let mut lanes = [0f64; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for x in whole {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane += square(*x);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane += square(*x);
        }
        lanes.iter().sum()
    }
}

#[inline(always)]
fn square<T: Real>(x: T) -> f64 {
    let wide = num_traits::ToPrimitive::to_f64(&x).unwrap_or(f64::NAN);
    wide * wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::normal;

    fn value(sum: Tensor) -> Result<f64> {
        sum.to_dtype(DType::F64)?.to_scalar()
    }

    #[test]
    fn both_definitions_agree_at_any_length() -> Result<()> {
        for n in [0, 1, 17, BLOCK, 3 * BLOCK + 5] {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                let x = normal(1, &[n])?.to_dtype(dtype)?;
                let (got, want) = (square_sum(&x)?, composed(&x)?);
                assert_eq!((got.dtype(), want.dtype()), (DType::F64, dtype));
                let (got, want) = (value(got)?, value(want)?);
                assert!((got - want).abs() <= tolerance * want, "{n} {dtype:?}: {got} and {want}");
            }
        }
        let (x, half) = (normal(1, &[3, 4])?, normal(1, &[3, 4])?.to_dtype(DType::BF16)?);
        let want = value(composed(&x)?)?;
        assert!((value(square_sum(&x.t()?)?)? - want).abs() < 1e-12);
        assert!((value(square_sum(&half)?)? - want).abs() < 0.1);
        Ok(())
    }

    /// Candle's own sum over all of so many values is 0.5 % off.
    #[test]
    fn a_composed_sum_over_many_values_keeps_its_digits() -> Result<()> {
        let sum = composed(&Tensor::full(0.1f32, (1 << 11, 1 << 11), &Device::Cpu)?)?;
        let want = f64::from(0.1f32).powi(2) * f64::from(1 << 22);
        assert!((value(sum)? - want).abs() < 1e-5 * want);
        Ok(())
    }
}
