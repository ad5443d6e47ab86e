//! The HRNet head: project each stage, mix all at the finest size.

use super::Head;
use crate::layers::{BatchNorm, FeatureMap, Fold, Mode, PatchMerging, Projection, StageMap};
use crate::ops::{Conv1x1, MultiScaleHead};
use crate::params::{Group, Weights, uniform_by_fan_in};
use crate::{Error, Result};
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

    /// Checks the sizes for an encoder of `stages` stages; `place` is where they stand in a configuration.
    ///
    /// # Errors
    /// A number of channels that is missing or 0.
    pub fn check(&self, place: &str, stages: usize) -> Result<()> {
        if self.channels.len() == stages && self.channels.iter().all(|channels| (1..1 << 14).contains(channels)) {
            return Ok(());
        }
        let expected = format!("a number from 1 to 16383 for each of {stages} stages");
        let got = format!("{:?}", self.channels);
        Err(Error::config(format!("{place}.channels"), expected, got, "the paper uses 18, 36, 72, 144"))
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
    projections: Vec<Projection>,
    hidden: Conv1x1,
    norm: BatchNorm,
    output: Conv1x1,
}

fn conv1x1(n_in: usize, n_out: usize, weights: &Weights) -> CandleResult<Conv1x1> {
    let (vb, init) = (weights.adapter(Group::Heads), uniform_by_fan_in(n_in));
    let weight = vb.get_with_hints((n_out, n_in), "weight", init)?;
    Ok(Conv1x1 { weight, bias: vb.get_with_hints(n_out, "bias", init)? })
}

impl HrNetHead {
    /// For stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: &HrNetConfig, widths: &[usize], outputs: usize, weights: &Weights) -> CandleResult<Self> {
        let vb = weights.adapter(Group::Projections).pp("projections");
        let project = |(i, (width, channels)): (usize, (&usize, &usize))| {
            vb.pp(i).get_with_hints((*channels, *width), "weight", uniform_by_fan_in(*width)).map(Projection::new)
        };
        let projections = widths.iter().zip(&config.channels).enumerate().map(project).collect::<CandleResult<_>>()?;
        let sum: usize = config.channels.iter().sum();
        Ok(Self {
            projections,
            hidden: conv1x1(sum, 4 * sum, &weights.pp("hidden"))?,
            norm: BatchNorm::new(4 * sum, &weights.pp("norm"))?,
            output: conv1x1(4 * sum, outputs, &weights.pp("output"))?,
        })
    }

    /// Each stage's projected map.
    fn project(&self, stages: &[StageMap]) -> CandleResult<Vec<FeatureMap>> {
        stages.iter().zip(&self.projections).map(|(stage, projection)| stage.project(projection)).collect()
    }
}

impl Head for HrNetHead {
    fn forward(&self, stages: &[StageMap], mode: Mode) -> CandleResult<Tensor> {
        let (hidden, norm, output) = (self.hidden.clone(), self.norm.step(mode), self.output.clone());
        let (y, moments) = MultiScaleHead { maps: self.project(stages)?, hidden, norm, output }.forward()?;
        let (batch, _, h, w) = y.dims4()?;
        self.norm.follow(&moments, batch * h * w, mode)?;
        Ok(y)
    }

    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> CandleResult<()> {
        self.projections.iter_mut().zip(mergings).try_for_each(|(projection, merging)| projection.fold(how, *merging))
    }
}
