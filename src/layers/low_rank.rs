//! The task-shared module: a frozen linear map with a trained low-rank path beside it.

use super::{Merge, Mode};
use crate::ops::{Dropout, LowRankMap, LowRankPath};
use crate::params::{Group, Pretrained, Weights};
use candle_core::{Result, Tensor};
use candle_nn::Init;
use candle_nn::init::ZERO;

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

/// `y = W x + b + s B (A dropout(x))`, W and b frozen; A from a uniform distribution in ±1/sqrt(in), B zero.
///
/// # Shapes
/// `x` `[.., in]`, W `[out, in]`, A `[r, in]`, B `[out, r]`, y `[.., out]`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::layers::{LowRankConfig, LowRankLinear, Mode};
/// use tadformer::params::{Ledger, Release, Weights, random_source};
/// let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
/// let weights = Weights::new(random_source(0, DType::F32, &Device::Cpu), ledger.clone(), Release::none());
/// let path = LowRankConfig { rank: 4, scale: 4.0, dropout: 0.0 };
/// let linear = LowRankLinear::new(64, 10, Some(path), &weights.pp("classifier"))?;
/// assert_eq!(linear.forward(&Tensor::ones((2, 64), DType::F32, &Device::Cpu)?, Mode::Eval)?.dims(), [2, 10]);
/// assert_eq!(ledger.trained().len(), 2, "A and B train, W and b do not");
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: TS-Module, section 3.1 of the paper, after MTLoRA. Without a low-rank path it is the plain pretrained linear.
#[derive(Clone, Debug)]
pub struct LowRankLinear {
    map: LowRankMap,
    /// What the path drops of its input, in training.
    dropout: f64,
    /// The weights as inference reads them.
    merged: Option<LowRankMap>,
}

impl LowRankLinear {
    /// A linear map with a bias, from `weights` at this place; `low_rank` adds the trained path.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(n_in: usize, n_out: usize, low_rank: Option<LowRankConfig>, weights: &Weights) -> Result<Self> {
        let init = Init::Randn { mean: 0.0, stdev: (n_in as f64).powf(-0.5) };
        let weight = weights.pretrained(Pretrained::Linears, (n_out, n_in), "weight", init)?;
        let bias = Some(weights.bias(Pretrained::Biases, n_out)?);
        let dropout = low_rank.map_or(0.0, |config| config.dropout);
        let path = low_rank.map(|config| path(n_in, n_out, config, weights)).transpose()?;
        Ok(Self { map: LowRankMap { weight, bias, path }, dropout, merged: None })
    }

    /// The trained path, where there is one.
    pub fn low_rank(&self) -> Option<&LowRankPath> {
        self.map.path.as_ref()
    }

    /// The weights as inference reads them: W with the path folded in, or turned alone; or drops those.
    ///
    /// # Errors
    /// A device without room for the folded weight.
    pub fn merge(&mut self, how: Merge) -> Result<()> {
        self.merged = match how {
            Merge::Restore => None,
            Merge::Fold => Some(self.map.folded()?.turned()?),
            Merge::Apart => Some(self.map.turned()?),
        };
        Ok(())
    }

    /// The weights with what this pass drops: in training, each call draws anew.
    pub fn map(&self, mode: Mode) -> LowRankMap {
        if let (Mode::Eval, Some(merged)) = (mode, &self.merged) {
            return merged.clone();
        }
        let mut map = self.map.clone();
        if let (Mode::Train(rng), Some(path)) = (mode, &mut map.path) {
            path.dropout = (self.dropout > 0.0).then(|| Dropout { rate: self.dropout, seed: rng.seed() });
        }
        map
    }

    /// The pretrained part alone: `W x + b`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn pretrained(&self, x: &Tensor) -> Result<Tensor> {
        self.map.pretrained(x)
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// A last dimension other than `in`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.map(mode).forward(x)
    }
}

fn path(n_in: usize, n_out: usize, config: LowRankConfig, weights: &Weights) -> Result<LowRankPath> {
    let vb = weights.adapter(Group::LowRank).pp("low_rank");
    let a = vb.get_with_hints((config.rank, n_in), "a", crate::params::uniform_by_fan_in(n_in))?;
    let b = vb.get_with_hints((n_out, config.rank), "b", ZERO)?;
    Ok(LowRankPath { a, b, scale: config.scale, dropout: None })
}
