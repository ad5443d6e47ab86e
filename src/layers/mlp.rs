//! The two-layer perceptron of a block.

use super::{LowRankConfig, LowRankLinear, Mode};
use crate::ops;
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// Where a block's two MLP layers carry low-rank paths.
#[derive(Clone, Copy, Debug, Default)]
pub struct MlpLowRank {
    /// On the first layer.
    pub fc1: Option<LowRankConfig>,
    /// On the second.
    pub fc2: Option<LowRankConfig>,
}

/// `fc2(GELU(fc1(x)))`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `[C]` to `[hidden]`.
    pub fc1: LowRankLinear,
    /// `[hidden]` to `[C]`.
    pub fc2: LowRankLinear,
}

/// An MLP's result with the two frozen products that task-adapting layers build on.
pub struct MlpOutput {
    /// `W1 x + b1`.
    pub pre: Tensor,
    /// `W2 GELU(fc1(x)) + b2`.
    pub post: Tensor,
    /// The whole.
    pub out: Tensor,
}

impl Mlp {
    /// From `weights` at this place.
    pub fn new(channels: usize, hidden: usize, low_rank: MlpLowRank, weights: &Weights) -> Result<Self> {
        let fc1 = LowRankLinear::new(channels, hidden, low_rank.fc1, &weights.pp("fc1"))?;
        let fc2 = LowRankLinear::new(hidden, channels, low_rank.fc2, &weights.pp("fc2"))?;
        Ok(Self { fc1, fc2 })
    }

    /// `[.., C]` to `[.., C]` with the intermediate products.
    pub fn forward_parts(&self, x: &Tensor, mode: Mode) -> Result<MlpOutput> {
        let pre = self.fc1.pretrained(x)?;
        let hidden = ops::gelu(&self.fc1.add_low_rank(&pre, &self.fc1.dropped(x, mode)?)?)?;
        let post = self.fc2.pretrained(&hidden)?;
        let out = self.fc2.add_low_rank(&post, &self.fc2.dropped(&hidden, mode)?)?;
        Ok(MlpOutput { pre, post, out })
    }

    /// `[.., C]` to `[.., C]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        Ok(self.forward_parts(x, mode)?.out)
    }
}
