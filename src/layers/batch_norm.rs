//! Batch normalisation whose running statistics the ledger keeps apart from what trains.

use super::Mode;
use crate::ops;
use crate::ops::{BatchMoments, MomentsOf};
use crate::params::{Group, Weights};
use candle_core::{Result, Tensor, Var};
use candle_nn::init::{ONE, ZERO};

/// Batch normalisation of rows, by the batch's moments in training and by running ones in evaluation.
///
/// `(x - mean) / sqrt(var + 1e-5) * weight + bias`, mean and biased variance of each channel.
///
/// Running statistics move by a tenth of the difference at each training step, the variance's unbiased, as PyTorch's do.
/// candle-nn's BatchNorm keeps its statistics among the trained variables; this one does not. One whose scale does not train is as in
/// evaluation, in training too.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Var,
    variance: Var,
}

impl BatchNorm {
    const EPS: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Over `channels`, from `weights` at this place.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let vb = weights.adapter(Group::Heads);
        Ok(Self {
            weight: vb.get_with_hints(channels, "weight", ONE)?,
            bias: vb.get_with_hints(channels, "bias", ZERO)?,
            mean: weights.statistics(channels, "running_mean", 0.0)?,
            variance: weights.statistics(channels, "running_var", 1.0)?,
        })
    }

    /// `[n, C]` to `[n, C]`.
    ///
    /// # Errors
    /// In training, a single row: one value has no variance.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let (y, moments) = self.step(mode).forward(x)?;
        self.follow(&moments, x.dim(0)?, mode)?;
        Ok(y)
    }

    /// A norm whose scale is kept from training keeps its statistics, and is normalised by them, as in evaluation.
    fn mode<'a>(&self, mode: Mode<'a>) -> Mode<'a> {
        if self.weight.is_variable() { mode } else { Mode::Eval }
    }

    /// The step itself, by the moments that `mode` asks for; [`BatchNorm::follow`] is to be called with those it used.
    pub(crate) fn step(&self, mode: Mode) -> ops::BatchNorm {
        let running =
            || BatchMoments { mean: self.mean.as_tensor().clone(), variance: self.variance.as_tensor().clone() };
        let moments = match self.mode(mode) {
            Mode::Eval => MomentsOf::Given(running()),
            Mode::Train(_) => MomentsOf::Batch,
        };
        ops::BatchNorm { weight: self.weight.clone(), bias: self.bias.clone(), moments, eps: Self::EPS }
    }

    /// In training, moves the running statistics towards the moments of a batch of `rows` values a channel.
    pub(crate) fn follow(&self, batch: &BatchMoments, rows: usize, mode: Mode) -> Result<()> {
        if matches!(self.mode(mode), Mode::Eval) {
            return Ok(());
        }
        if rows < 2 {
            candle_core::bail!(
                "BatchNorm: expected at least 2 values for each channel in training, got {rows} (use a larger batch or image)"
            )
        }
        let unbiased = (&batch.variance * (rows as f64 / (rows - 1) as f64))?;
        let step = |running: &Var, to: &Tensor| -> Result<()> {
            let moved = ((running.as_tensor() * (1.0 - Self::MOMENTUM))? + (to * Self::MOMENTUM)?)?;
            running.set(&moved.detach())
        };
        step(&self.mean, &batch.mean)?;
        step(&self.variance, &unbiased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::TrainingPass;
    use crate::params::Ledger;
    use candle_core::{DType, Device};

    fn norm() -> Result<(BatchNorm, Ledger)> {
        let weights = Weights::random(0, DType::F32, &Device::Cpu);
        Ok((BatchNorm::new(2, &weights.pp("norm"))?, weights.ledger().clone()))
    }

    #[test]
    fn training_follows_the_batch_as_pytorch_does() -> Result<()> {
        let (norm, ledger) = norm()?;
        let x = Tensor::new(&[[1f32, 10.], [3., 10.]], &Device::Cpu)?;
        let y = norm.forward(&x, Mode::Train(&TrainingPass::seeded(0)))?.to_vec2::<f32>()?;
        assert!((y[0][0] + 1.0).abs() < 1e-4 && (y[1][0] - 1.0).abs() < 1e-4 && y[0][1] == 0.0);
        assert_eq!(norm.mean.to_vec1::<f32>()?, [0.2, 1.0]);
        assert_eq!(norm.variance.to_vec1::<f32>()?, [1.1, 0.9], "unbiased variance 2 and 0, momentum 0.1");
        assert_eq!(ledger.trained().len(), 2, "statistics do not train");
        Ok(())
    }

    #[test]
    fn a_norm_that_is_kept_from_training_keeps_its_statistics() -> Result<()> {
        let norm = BatchNorm::new(2, &Weights::random(0, DType::F32, &Device::Cpu).held())?;
        let (x, pass) = (Tensor::new(&[[1f32, 10.], [3., 10.]], &Device::Cpu)?, TrainingPass::seeded(0));
        let y = norm.forward(&x, Mode::Train(&pass))?.to_vec2::<f32>()?;
        assert_eq!(y, norm.forward(&x, Mode::Eval)?.to_vec2::<f32>()?);
        assert_eq!(norm.mean.to_vec1::<f32>()?, [0.0; 2]);
        assert_eq!(norm.variance.to_vec1::<f32>()?, [1.0; 2]);
        Ok(())
    }

    #[test]
    fn one_value_per_channel_is_refused_in_training() -> Result<()> {
        let (norm, _) = norm()?;
        let x = Tensor::ones((1, 2), DType::F32, &Device::Cpu)?;
        let message = norm.forward(&x, Mode::Train(&TrainingPass::seeded(0))).unwrap_err().to_string();
        assert!(message.contains("at least 2 values") && message.contains("larger batch"), "{message}");
        norm.forward(&x, Mode::Eval).map(drop)
    }
}
