//! The two-layer perceptron of a block.

use super::{Fold, LowRankConfig, LowRankLinear, Mode};
use crate::ops;
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// The low-rank paths that the two layers of an [`Mlp`] carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct MlpLowRank {
    /// On the first layer.
    pub fc1: Option<LowRankConfig>,
    /// On the second.
    pub fc2: Option<LowRankConfig>,
}

/// The two-layer perceptron of a block, `fc2(GELU(fc1(x)))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[C]` to `[hidden]`.
    pub fc1: LowRankLinear,
    /// `[hidden]` to `[C]`.
    pub fc2: LowRankLinear,
}

impl Mlp {
    /// From `weights` at this place.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(channels: usize, hidden: usize, low_rank: MlpLowRank, weights: &Weights) -> Result<Self> {
        let fc1 = LowRankLinear::new(channels, hidden, low_rank.fc1, &weights.pp("fc1"))?;
        let fc2 = LowRankLinear::new(hidden, channels, low_rank.fc2, &weights.pp("fc2"))?;
        Ok(Self { fc1, fc2 })
    }

    /// As [`LowRankLinear::fold`], both layers.
    ///
    /// # Errors
    /// As [`LowRankLinear::fold`].
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.fc1.fold(how)?;
        self.fc2.fold(how)
    }

    /// `[.., C]` to `[.., C]`.
    ///
    /// # Errors
    /// A last dimension other than C.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.fc2.forward_in(&ops::gelu(&self.fc1.forward_in(x, mode)?)?, mode)
    }
}
