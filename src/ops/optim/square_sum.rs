//! The sum of squares of a tensor.

use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::cpu::{Real, values};
use crate::ops::graph::{Definition, Runs};

use crate::ops::graph::trace::{self, Pass};
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

/// `Σ x²` in f64, whatever the values' type; the same for any number of threads.
pub(crate) fn square_sum(x: &Tensor) -> Result<f64> {
    match Runs::of(x) {
        Runs::CpuF32 => fused::<f32>(x),
        Runs::CpuF64 => fused::<f64>(x),
        Runs::Composed => composed(x),
    }
}

fn composed(x: &Tensor) -> Result<f64> {
    x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()
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

    #[test]
    fn both_definitions_agree_at_any_length() -> Result<()> {
        for n in [0, 1, 17, BLOCK, 3 * BLOCK + 5] {
            for dtype in [DType::F64, DType::F32] {
                let x = normal(1, &[n])?.to_dtype(dtype)?;
                let want = composed(&x)?;
                assert!((square_sum(&x)? - want).abs() <= 1e-12 * want, "{n} {dtype:?}");
            }
        }
        let (x, half) = (normal(1, &[3, 4])?, normal(1, &[3, 4])?.to_dtype(DType::BF16)?);
        assert!((square_sum(&x.t()?)? - composed(&x)?).abs() < 1e-12);
        assert!((square_sum(&half)? - composed(&x)?).abs() < 0.1);
        Ok(())
    }
}
