//! Batch normalisation of channels-last rows.

use super::graph::OnTensor;
use super::shapes::Shapes;
use candle_core::{Result, Tensor};

/// Mean and variance of a batch, for each channel.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    /// `[C]`.
    pub mean: Tensor,
    /// `[C]`, biased: what the batch is normalised by.
    pub variance: Tensor,
}

impl BatchMoments {
    fn of(x: &Tensor) -> Result<Self> {
        let mean = x.mean(0)?;
        let variance = x.broadcast_sub(&mean)?.sqr()?.mean(0)?;
        Ok(Self { mean, variance })
    }

    pub(super) fn detach(&self) -> Self {
        Self { mean: self.mean.detach(), variance: self.variance.detach() }
    }
}

/// What a batch is normalised by.
#[derive(Clone, Debug)]
pub enum MomentsOf {
    /// The batch itself; the gradient flows through its moments.
    Batch,
    /// Something else: these moments are constants.
    Given(BatchMoments),
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for rows `[n, C]`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// `[C]`.
    pub weight: Tensor,
    /// `[C]`.
    pub bias: Tensor,
    /// Whose mean and variance.
    pub moments: MomentsOf,
    /// What keeps the root away from 0.
    pub eps: f64,
}

impl BatchNorm {
    /// y, and the moments it was made with, detached.
    ///
    /// # Errors
    /// Rows of another number of channels, or another float type, than the weight's.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, BatchMoments)> {
        let shapes = Shapes::of("batch-norm", x)?;
        let [_, c] = shapes.sizes("x", x)?;
        self.check(shapes, c)?;
        let by = match &self.moments {
            MomentsOf::Batch => BatchMoments::of(x)?,
            MomentsOf::Given(moments) => moments.detach(),
        };
        let scale = (&self.weight / (&by.variance + self.eps)?.sqrt()?)?;
        let y = x.broadcast_sub(&by.mean)?.broadcast_mul(&scale)?.broadcast_add(&self.bias)?;
        Ok((y, by.detach()))
    }

    /// For the step of `shapes`, on C channels.
    pub(super) fn check(&self, shapes: Shapes, c: usize) -> Result<()> {
        shapes.expect("a norm's weight", &self.weight, &[c])?;
        shapes.expect("a norm's bias", &self.bias, &[c])?;
        match &self.moments {
            MomentsOf::Batch => Ok(()),
            MomentsOf::Given(BatchMoments { mean, variance }) => {
                shapes.expect("a given mean", mean, &[c])?;
                shapes.expect("a given variance", variance, &[c])
            }
        }
    }

    /// Given moments are constants, which lead to no variable.
    pub(super) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { weight: f(&self.weight)?, bias: f(&self.bias)?, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, normal};

    #[test]
    fn gradients_reach_through_the_batch_s_moments_and_not_through_given_ones() -> Result<()> {
        let (x, w, b) = (normal(1, &[5, 3])?, normal(2, &[3])?, normal(3, &[3])?);
        let given = BatchMoments::of(&normal(4, &[7, 3])?)?;
        for moments in [MomentsOf::Batch, MomentsOf::Given(given)] {
            let norm = |v: &[Tensor]| BatchNorm {
                weight: v[1].clone(),
                bias: v[2].clone(),
                moments: moments.clone(),
                eps: 1e-5,
            };
            check(&[&x, &w, &b], |v| Ok(norm(v).forward(&v[0])?.0))?;
        }
        Ok(())
    }
}
