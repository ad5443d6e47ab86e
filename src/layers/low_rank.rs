//! The task-shared module: a frozen linear map with a trained low-rank path beside it.

use super::{Mode, dropout};
use crate::ops;
use crate::params::{Group, Pretrained, Weights};
use candle_core::{Result, Tensor};
use candle_nn::{Init, init::ZERO};

/// The size of a low-rank path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRankConfig {
    /// Rank r of B A.
    pub rank: usize,
    /// What multiplies B A x; it is not divided by the rank.
    pub scale: f64,
    /// Dropout on the path's input, in training.
    pub dropout: f64,
}

/// A trained path of low rank: `s B (A u)`, A from a uniform distribution in ±1/sqrt(in), B zero.
#[derive(Clone, Debug)]
pub struct LowRank {
    a: Tensor,
    b: Tensor,
    config: LowRankConfig,
}

/// `y = W x + b + s B (A dropout(x))`, W and b frozen.
///
/// # Shapes
/// `x` `[.., in]`, W `[out, in]`, A `[r, in]`, B `[out, r]`, y `[.., out]`.
///
/// Source: TS-Module, section 3.1 of the paper, after MTLoRA. Without a low-rank path it is the plain pretrained linear.
#[derive(Clone, Debug)]
pub struct LowRankLinear {
    weight: Tensor,
    bias: Option<Tensor>,
    low_rank: Option<LowRank>,
}

impl LowRank {
    fn new(n_in: usize, n_out: usize, config: LowRankConfig, weights: &Weights) -> Result<Self> {
        let vb = weights.adapter(Group::LowRank).pp("low_rank");
        let a = vb.get_with_hints((config.rank, n_in), "a", crate::params::uniform_by_fan_in(n_in))?;
        let b = vb.get_with_hints((n_out, config.rank), "b", ZERO)?;
        Ok(Self { a, b, config })
    }

    /// Rank r.
    pub fn rank(&self) -> usize {
        self.config.rank
    }

    /// `A x`: `[.., in]` to `[.., r]`.
    pub fn down(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.a, None)
    }

    /// `s B u`: `[.., r]` to `[.., out]`.
    pub fn up(&self, u: &Tensor) -> Result<Tensor> {
        ops::linear(&(u * self.config.scale)?, &self.b, None)
    }
}

impl LowRankLinear {
    /// A linear map with a bias, from `weights` at this place; `low_rank` adds the trained path.
    pub fn new(n_in: usize, n_out: usize, low_rank: Option<LowRankConfig>, weights: &Weights) -> Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: (n_in as f64).powf(-0.5) };
        let weight = weights.pretrained(Pretrained::Linears, (n_out, n_in), "weight", init)?;
        let bias = Some(weights.pretrained(Pretrained::Linears, n_out, "bias", ZERO)?);
        let low_rank = low_rank.map(|config| LowRank::new(n_in, n_out, config, weights)).transpose()?;
        Ok(Self { weight, bias, low_rank })
    }

    /// The trained path, where there is one.
    pub fn low_rank(&self) -> Option<&LowRank> {
        self.low_rank.as_ref()
    }

    /// The pretrained part alone: `W x + b`.
    pub fn pretrained(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// What the low-rank path reads in this mode: `dropout(x)`.
    pub fn dropped(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.low_rank.as_ref().map_or_else(|| Ok(x.clone()), |path| dropout(x, path.config.dropout, mode))
    }

    /// Adds the low-rank path's `s B A x` to `y`; x as [`LowRankLinear::dropped`] gives it.
    pub fn add_low_rank(&self, y: &Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.low_rank {
            Some(path) => y + path.up(&path.down(x)?)?,
            None => Ok(y.clone()),
        }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.add_low_rank(&self.pretrained(x)?, &self.dropped(x, mode)?)
    }
}
