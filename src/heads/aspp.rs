//! DeepLabV3's head: atrous spatial pyramid pooling.

use super::Head;
use super::conv::conv1x1;
use super::projections::Projections;
use super::sizes::{check_channels, check_dropout, check_projections};
use crate::layers::{BatchNorm, FeatureMap, Fold, Mode, dropout};
use crate::layers::{PatchMerging, StageMap};
use crate::ops::{BatchMoments, Conv1x1, bilinear, conv3x3, leaf, linear, recomputed};
use crate::params::{Group, Weights, uniform_by_fan_in};
use crate::{Error, Result};
use candle_core::{Result as CandleResult, Tensor};
use serde::{Deserialize, Serialize};

/// More branches, and wider ones, than any pyramid has.
const MOST_RATES: usize = 8;
const MOST_RATE: usize = 1 << 10;

/// The sizes of an ASPP head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AsppConfig {
    /// Channels to which each stage is projected; H is their sum.
    pub channels: Vec<usize>,
    /// Channels w of every branch, and of what follows them.
    pub width: usize,
    /// How far apart the taps of each 3x3 branch lie.
    pub rates: Vec<usize>,
    /// The share of mixed values that training drops.
    pub dropout: f64,
}

impl Default for AsppConfig {
    fn default() -> Self {
        Self::new([18, 36, 72, 144])
    }
}

impl AsppConfig {
    const DROPOUT: f64 = 0.5;

    /// With these channels, one number for each stage, and DeepLabV3's sizes: 256 channels, rates 12, 24, 36, dropout 0.5.
    pub fn new(channels: impl Into<Vec<usize>>) -> Self {
        Self { channels: channels.into(), width: 256, rates: vec![12, 24, 36], dropout: Self::DROPOUT }
    }

    /// Another number of channels in every branch.
    pub fn width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    /// Other rates, a 3x3 branch for each.
    pub fn rates(self, rates: impl Into<Vec<usize>>) -> Self {
        Self { rates: rates.into(), ..self }
    }

    /// Another dropout.
    pub fn dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Channels of all branches together: one 1x1, the dilated ones, the pooled one.
    pub(super) fn branches(&self) -> usize {
        (self.rates.len() + 2) * self.width
    }

    /// Checks the sizes for an encoder of `stages` stages; `place` is where they stand in a configuration.
    ///
    /// # Errors
    /// The first size that cannot work.
    pub fn check(&self, place: &str, stages: usize) -> Result<()> {
        check_projections(place, &self.channels, stages)?;
        check_channels(place, "width", self.width)?;
        if !(1..=MOST_RATES).contains(&self.rates.len())
            || !self.rates.iter().all(|rate| (1..=MOST_RATE).contains(rate))
        {
            let expected = format!("1 to {MOST_RATES} numbers from 1 to {MOST_RATE}");
            let got = format!("{:?}", self.rates);
            return Err(Error::config(format!("{place}.rates"), expected, got, "DeepLabV3 uses 12, 24, 36"));
        }
        check_dropout(place, self.dropout, Self::DROPOUT)
    }
}

/// DeepLabV3's decoder on the projected stages: branches that look near and far, mixed.
///
/// With x the stages' projections, resized to the finest map's size and concatenated:
/// `output(refine(drop(project(concat(point(x), dilated_j(x).., pool(x))))))`. Each of these but output is a convolution without a bias,
/// a BatchNorm and ReLU: point and project 1x1, dilated 3x3 with taps `rates[j]` apart, refine 3x3, pool 1x1 of the mean of all positions,
/// which every position gets. Output is a 1x1 convolution with a bias.
///
/// # Shapes
/// Maps `[B, N_i, C_i]`, finest first, to `[B, n, h, w]` of the finest. In training B is at least 2: the pooled branch has one value a
/// channel and image.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::heads::{AsppConfig, AsppHead, Head};
/// use tadformer::layers::{FeatureMap, Mode};
/// use tadformer::params::Weights;
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let config = AsppConfig::new([8, 16]).width(32).rates([2, 4]);
/// let head = AsppHead::new(&config, &[64, 128], 5, &weights.pp("head"))?;
/// let fine = FeatureMap { tokens: Tensor::zeros((1, 12 * 16, 64), DType::F32, &Device::Cpu)?, size: (12, 16) };
/// let coarse = FeatureMap { tokens: Tensor::zeros((1, 6 * 8, 128), DType::F32, &Device::Cpu)?, size: (6, 8) };
/// assert_eq!(head.forward(&[fine.into(), coarse.into()], Mode::Eval)?.dims(), [1, 5, 12, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: arXiv 1706.05587 and torchvision's `DeepLabHead`, wired as MTLoRA's `aspp` is: on all stages, where DeepLabV3 has the last one
/// alone. Its rates are those for a map of an eighth of the image's side, which the finest of these is; on the last stage, of
/// a 32nd, most taps would lie outside.
#[derive(Debug)]
pub struct AsppHead {
    projections: Projections,
    point: Branch,
    dilated: Vec<Branch>,
    pool: Branch,
    project: Branch,
    dropout: f64,
    refine: Branch,
    output: Conv1x1,
}

impl AsppHead {
    /// For stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: &AsppConfig, widths: &[usize], outputs: usize, weights: &Weights) -> CandleResult<Self> {
        let (sum, width) = (config.channels.iter().sum(), config.width);
        let place = weights.pp("dilated");
        let dilated = |(j, rate): (usize, &usize)| Branch::dilated(*rate, sum, width, &place.pp(j));
        Ok(Self {
            projections: Projections::new(&config.channels, widths, weights)?,
            point: Branch::point(sum, width, &weights.pp("point"))?,
            dilated: config.rates.iter().enumerate().map(dilated).collect::<CandleResult<_>>()?,
            pool: Branch::point(sum, width, &weights.pp("pool"))?,
            project: Branch::point(config.branches(), width, &weights.pp("project"))?,
            dropout: config.dropout,
            refine: Branch::dilated(1, width, width, &weights.pp("refine"))?,
            output: conv1x1(width, outputs, &weights.pp("output"))?,
        })
    }

    /// The projections at the finest map's size, concatenated: all branches read them.
    fn gather(&self, stages: &[StageMap]) -> CandleResult<FeatureMap> {
        let maps = self.projections.project(stages)?;
        let Some(size) = maps.first().map(|map| map.size) else { candle_core::bail!("aspp: expected a map, got none") };
        let resize = |map: &FeatureMap| bilinear(&map.to_nchw()?, size);
        let x = Tensor::cat(&maps.iter().map(resize).collect::<CandleResult<Vec<_>>>()?, 1)?;
        let FeatureMap { tokens, size } = FeatureMap::from_nchw(&x)?;
        Ok(FeatureMap { tokens: leaf(&tokens.contiguous()?)?, size })
    }

    /// All branches of `x`, concatenated.
    fn pyramid(&self, x: &FeatureMap, mode: Mode) -> CandleResult<FeatureMap> {
        let local = std::iter::once(&self.point).chain(&self.dilated);
        let mut branches = local.map(|branch| branch.forward(x, mode)).collect::<CandleResult<Vec<_>>>()?;
        let mean = FeatureMap { tokens: x.tokens.mean_keepdim(1)?, size: (1, 1) };
        let pooled = self.pool.forward(&mean, mode)?;
        branches.push(pooled.broadcast_as(branches[0].shape())?);
        Ok(FeatureMap { tokens: Tensor::cat(&branches, 2)?, size: x.size })
    }
}

impl Head for AsppHead {
    fn forward(&self, stages: &[StageMap], mode: Mode) -> CandleResult<Tensor> {
        let x = self.gather(stages)?;
        let mixed = self.project.forward(&self.pyramid(&x, mode)?, mode)?;
        let mixed = FeatureMap { tokens: dropout(&mixed, self.dropout, mode)?, size: x.size };
        let tokens = linear(&self.refine.forward(&mixed, mode)?, &self.output.weight, Some(&self.output.bias))?;
        FeatureMap { tokens, size: x.size }.to_nchw()
    }

    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> CandleResult<()> {
        self.projections.fold(how, mergings)
    }
}

/// A convolution without a bias, a BatchNorm, and ReLU.
#[derive(Debug)]
struct Branch {
    weight: Tensor,
    /// How far apart the taps of a 3x3 convolution lie; `None` for a 1x1 one.
    rate: Option<usize>,
    norm: BatchNorm,
}

impl Branch {
    /// A 1x1 convolution.
    fn point(n_in: usize, n_out: usize, weights: &Weights) -> CandleResult<Self> {
        let weight = weights.adapter(Group::Heads).get_with_hints((n_out, n_in), "weight", uniform_by_fan_in(n_in))?;
        Ok(Self { weight, rate: None, norm: BatchNorm::new(n_out, &weights.pp("norm"))? })
    }

    /// A 3x3 convolution whose taps lie `rate` apart.
    fn dilated(rate: usize, n_in: usize, n_out: usize, weights: &Weights) -> CandleResult<Self> {
        let (vb, init) = (weights.adapter(Group::Heads), uniform_by_fan_in(9 * n_in));
        let weight = vb.get_with_hints((n_out, n_in, 3, 3), "weight", init)?;
        Ok(Self { weight, rate: Some(rate), norm: BatchNorm::new(n_out, &weights.pp("norm"))? })
    }

    /// To `[B, N, n_out]`.
    fn forward(&self, x: &FeatureMap, mode: Mode) -> CandleResult<Tensor> {
        let y = match self.rate {
            Some(rate) => conv3x3(x, &self.weight, rate)?,
            None => linear(&x.tokens, &self.weight, None)?,
        };
        let (b, n, c) = y.dims3()?;
        let (rows, norm) = (y.reshape((b * n, c))?, self.norm.step(mode));
        // Backward makes the normed values again: kept, they are several times what the convolutions keep.
        let normed = move || {
            let (y, BatchMoments { mean, variance }) = norm.forward(&rows)?;
            Ok(vec![y.relu()?, mean, variance])
        };
        let [y, mean, variance] = &recomputed(normed)?[..] else {
            candle_core::bail!("aspp: a norm gave other than values and moments")
        };
        self.norm.follow(&BatchMoments { mean: mean.clone(), variance: variance.clone() }, b * n, mode)?;
        y.reshape((b, n, c))
    }
}
