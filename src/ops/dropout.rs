//! Dropout as a function of a seed and a place.

use super::constants::constants;
use super::cpu::Real;
use super::cpu::simd;
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// Which values are dropped: a function of the seed and of a value's place alone, so that backward can find out again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The share that is dropped.
    pub rate: f64,
    /// What tells one draw from another.
    pub seed: u64,
}

impl Dropout {
    /// 0 for a value that is dropped and `1 / (1 - rate)` for one that is kept; `index` is the value's place.
    #[inline(always)]
    fn factor(self, index: usize) -> f64 {
        // SplitMix64's finisher.
        let mut z = self.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64;
        if uniform < self.rate { 0.0 } else { 1.0 / (1.0 - self.rate) }
    }

    /// The factors of all values of `x`, drawn on the host by all its threads.
    pub(crate) fn of(self, x: &Tensor) -> Result<Tensor> {
        let factors: Vec<f64> = (0..x.elem_count()).into_par_iter().map(|i| self.factor(i)).collect();
        constants(&factors, x.dims(), x.dtype(), x.device())
    }

    /// `y[i] = x[i] factor(first + i)`.
    pub(in crate::ops) fn apply<T: Real>(self, x: &[T], first: usize, y: &mut [T]) {
        simd::vectorised(|| {
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                *y = *x * T::of(self.factor(first + i));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn dropout_keeps_the_mean_and_is_a_function_of_its_seed() -> Result<()> {
        let x = Tensor::ones((200, 50), DType::F32, &Device::Cpu)?;
        let draw = |seed| -> Result<Vec<f32>> { (&x * Dropout { rate: 0.25, seed }.of(&x)?)?.flatten_all()?.to_vec1() };
        let mean = draw(3)?.iter().sum::<f32>() / 10_000.0;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(draw(1)?, draw(1)?);
        assert_ne!(draw(1)?, draw(2)?);
        Ok(())
    }
}
