//! The exact Gaussian error linear unit.

use candle_core::{Result, Tensor};

/// `gelu(x) = x Φ(x) = x (1 + erf(x / √2)) / 2`, for each value.
///
/// Candle's own `gelu_erf` has a backward whose constant is rounded to six digits; this one's is exact.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let phi = ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? * 0.5)? + 0.5;
    x * phi?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradient() -> Result<()> {
        let x = Tensor::new(&[-1.0f64, 0.0, 1.0, 3.0], &candle_core::Device::Cpu)?;
        let want = Tensor::new(&[-0.15865525393145707, 0.0, 0.8413447460685429, 2.9959503059110147], x.device())?;
        close(&gelu(&x)?, &want, 1e-11)?;
        check(&[&normal(1, &[3, 4])?], |v| gelu(&v[0]))
    }
}
