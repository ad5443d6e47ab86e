//! Batch normalisation of channels-last rows.

use candle_core::{Result, Tensor};

/// Mean and variance of a batch, for each channel.
pub struct BatchMoments {
    /// `[C]`.
    pub mean: Tensor,
    /// `[C]`, biased: what the batch is normalised by.
    pub variance: Tensor,
}

/// Moments over all rows of `x` `[n, C]`.
pub fn batch_moments(x: &Tensor) -> Result<BatchMoments> {
    let mean = x.mean(0)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean(0)?;
    Ok(BatchMoments { mean, variance })
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for rows `[n, C]`.
pub fn batch_norm(x: &Tensor, by: &BatchMoments, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let scale = (weight / (&by.variance + eps)?.sqrt()?)?;
    x.broadcast_sub(&by.mean)?.broadcast_mul(&scale)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, normal};

    #[test]
    fn gradients_reach_through_the_moments() -> Result<()> {
        let (x, w, b) = (normal(1, &[5, 3])?, normal(2, &[3])?, normal(3, &[3])?);
        check(&[&x, &w, &b], |v| batch_norm(&v[0], &batch_moments(&v[0])?, &v[1], &v[2], 1e-5))
    }
}
