//! The HRNet head: project each stage, mix all at the finest size.

use super::Head;
use super::conv::{bias, conv1x1};
use super::projections::Projections;
use super::shared::SharedHidden;
use super::sizes::check_projections;
use crate::Result;
use crate::layers::{BatchNorm, Fold, Mode, PatchMerging, StageMap};
use crate::ops::{Conv1x1, MultiScaleHead};
use crate::params::Weights;
use candle_core::{Result as CandleResult, Tensor};
use serde::{Deserialize, Serialize};

/// The sizes of an HRNet head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HrNetConfig {
    /// Channels to which each stage is projected.
    pub channels: Vec<usize>,
}

impl Default for HrNetConfig {
    fn default() -> Self {
        Self::new([18, 36, 72, 144])
    }
}

impl HrNetConfig {
    /// With these channels, one number for each stage.
    pub fn new(channels: impl Into<Vec<usize>>) -> Self {
        Self { channels: channels.into() }
    }

    /// H: the channels of all stages together.
    pub(super) fn sum(&self) -> usize {
        self.channels.iter().sum()
    }

    /// Checks the sizes for an encoder of `stages` stages; `place` is where they stand in a configuration.
    ///
    /// # Errors
    /// A number of channels that is missing or 0.
    pub fn check(&self, place: &str, stages: usize) -> Result<()> {
        check_projections(place, &self.channels, stages)
    }
}

/// HRNet's decoder: each stage's map is projected, and all are mixed at the finest map's size.
///
/// `output(relu(norm(hidden(concat of resized projections))))`, hidden and output 1x1 convolutions, norm a BatchNorm; projections have
/// no bias, and the hidden layer is four times as wide as all of them together.
///
/// # Shapes
/// Maps `[B, N_i, C_i]`, finest first, to `[B, n, h, w]` of the finest.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::heads::{Head, HrNetConfig, HrNetHead};
/// use tadformer::layers::{FeatureMap, Mode};
/// use tadformer::params::Weights;
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let head = HrNetHead::new(&HrNetConfig::new([8, 16]), &[64, 128], 5, &weights.pp("head"))?;
/// let fine = FeatureMap { tokens: Tensor::zeros((1, 12 * 16, 64), DType::F32, &Device::Cpu)?, size: (12, 16) };
/// let coarse = FeatureMap { tokens: Tensor::zeros((1, 6 * 8, 128), DType::F32, &Device::Cpu)?, size: (6, 8) };
/// assert_eq!(head.forward(&[fine.into(), coarse.into()], Mode::Eval)?.dims(), [1, 5, 12, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: HRNetV2's segmentation head, as MTLoRA and TADFormer use it.
#[derive(Debug)]
pub struct HrNetHead {
    projections: Projections,
    hidden: Conv1x1,
    norm: BatchNorm,
    output: Conv1x1,
}

impl HrNetHead {
    /// For stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: &HrNetConfig, widths: &[usize], outputs: usize, weights: &Weights) -> CandleResult<Self> {
        let sum = config.sum();
        let hidden = conv1x1(sum, 4 * sum, &weights.pp("hidden"))?;
        Self::with_hidden(hidden, config, widths, outputs, weights)
    }

    /// As [`HrNetHead::new`], with a hidden layer whose weight is `shared`'s and whose bias is its own.
    ///
    /// # Errors
    /// As there.
    pub fn sharing(
        shared: &SharedHidden,
        config: &HrNetConfig,
        widths: &[usize],
        outputs: usize,
        weights: &Weights,
    ) -> CandleResult<Self> {
        let (sum, place) = (config.sum(), weights.pp("hidden"));
        let hidden = Conv1x1 { weight: shared.read_at(&place), bias: bias(sum, 4 * sum, &place)? };
        Self::with_hidden(hidden, config, widths, outputs, weights)
    }

    fn with_hidden(
        hidden: Conv1x1,
        config: &HrNetConfig,
        widths: &[usize],
        outputs: usize,
        weights: &Weights,
    ) -> CandleResult<Self> {
        let sum = config.sum();
        Ok(Self {
            projections: Projections::new(&config.channels, widths, weights)?,
            hidden,
            norm: BatchNorm::new(4 * sum, &weights.pp("norm"))?,
            output: conv1x1(4 * sum, outputs, &weights.pp("output"))?,
        })
    }
}

impl Head for HrNetHead {
    fn forward(&self, stages: &[StageMap], mode: Mode) -> CandleResult<Tensor> {
        let (hidden, norm, output) = (self.hidden.clone(), self.norm.step(mode), self.output.clone());
        let maps = self.projections.project(stages)?;
        let (y, moments) = MultiScaleHead { maps, hidden, norm, dropped: None, output }.forward()?;
        let (batch, _, h, w) = y.dims4()?;
        self.norm.follow(&moments, batch * h * w, mode)?;
        Ok(y)
    }

    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> CandleResult<()> {
        self.projections.fold(how, mergings)
    }
}
