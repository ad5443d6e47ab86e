//! SegFormer's all-MLP head: embed each stage, mix all at the finest size.

use super::Head;
use super::conv::{bias, conv1x1};
use super::projections::Projections;
use super::sizes::{check_channels, check_dropout};
use crate::Result;
use crate::layers::{BatchNorm, Fold, Mode, drop_channels};
use crate::layers::{PatchMerging, StageMap};
use crate::ops::{Conv1x1, MultiScaleHead, linear};
use crate::params::{Group, Weights, uniform_by_fan_in};
use candle_core::{Result as CandleResult, Tensor};
use serde::{Deserialize, Serialize};

/// The sizes of SegFormer's head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SegFormerConfig {
    /// Channels E to which each stage is embedded.
    pub channels: usize,
    /// The share of hidden channels that an image loses before the last layer, in training.
    pub dropout: f64,
}

impl Default for SegFormerConfig {
    fn default() -> Self {
        Self::new(256)
    }
}

impl SegFormerConfig {
    const DROPOUT: f64 = 0.1;

    /// With these channels, and the published dropout of 0.1. SegFormer uses 256 channels with its smallest encoders and 768 with the others.
    pub fn new(channels: usize) -> Self {
        Self { channels, dropout: Self::DROPOUT }
    }

    /// Another dropout.
    pub fn dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Checks the sizes; `place` is where they stand in a configuration.
    ///
    /// # Errors
    /// A size that cannot work.
    pub fn check(&self, place: &str) -> Result<()> {
        check_channels(place, "channels", self.channels)?;
        check_dropout(place, self.dropout, Self::DROPOUT)
    }
}

/// SegFormer's decoder: each stage's tokens are embedded by a linear layer, and all are mixed at the finest map's size.
///
/// `output(drop(relu(norm(hidden(concat of resized (P_i x_i + p_i))))))`, hidden and output 1x1 convolutions, hidden without a bias, norm a
/// BatchNorm. Dropout takes whole channels of an image. The biases p_i are added by the hidden layer, where they come to W concat(p_i):
/// resizing leaves constants as they are. Training's BatchNorm takes them away again, so that they stay as they started.
///
/// # Shapes
/// Maps x_i `[B, N_i, C_i]`, finest first; P_i `[E, C_i]`, hidden weight `[E, E S]` for S stages; result `[B, n, h, w]` of the finest.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::heads::{Head, SegFormerConfig, SegFormerHead};
/// use tadformer::layers::{FeatureMap, Mode};
/// use tadformer::params::Weights;
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let head = SegFormerHead::new(&SegFormerConfig::new(32), &[64, 128], 5, &weights.pp("head"))?;
/// let fine = FeatureMap { tokens: Tensor::zeros((1, 12 * 16, 64), DType::F32, &Device::Cpu)?, size: (12, 16) };
/// let coarse = FeatureMap { tokens: Tensor::zeros((1, 6 * 8, 128), DType::F32, &Device::Cpu)?, size: (6, 8) };
/// assert_eq!(head.forward(&[fine.into(), coarse.into()], Mode::Eval)?.dims(), [1, 5, 12, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: arXiv 2105.15203, section 3.2. Deviations: the hidden layer's columns stand in the stages' order, finest first, where the
/// published code has the coarsest first; MTLoRA's `segformer` embeds maps that were projected to 18, 36, 72 and 144 channels
/// before, where this one embeds the stages' own, as SegFormer does; an unused `conv_seg` of both is not made.
#[derive(Debug)]
pub struct SegFormerHead {
    projections: Projections,
    /// Of each projection, `[E]`.
    biases: Vec<Tensor>,
    /// `[E, E S]`.
    hidden: Tensor,
    norm: BatchNorm,
    output: Conv1x1,
    dropout: f64,
}

impl SegFormerHead {
    /// For stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: &SegFormerConfig, widths: &[usize], outputs: usize, weights: &Weights) -> CandleResult<Self> {
        let (channels, all) = (config.channels, config.channels * widths.len());
        let place = weights.pp("projections");
        let hidden = weights.pp("hidden").adapter(Group::Heads);
        Ok(Self {
            projections: Projections::new(&vec![channels; widths.len()], widths, weights)?,
            biases: widths
                .iter()
                .enumerate()
                .map(|(i, width)| bias(*width, channels, &place.pp(i)))
                .collect::<CandleResult<_>>()?,
            hidden: hidden.get_with_hints((channels, all), "weight", uniform_by_fan_in(all))?,
            norm: BatchNorm::new(channels, &weights.pp("norm"))?,
            output: conv1x1(channels, outputs, &weights.pp("output"))?,
            dropout: config.dropout,
        })
    }

    /// The hidden layer, and what the projections' biases come to in it.
    fn hidden(&self) -> CandleResult<Conv1x1> {
        let biases = Tensor::cat(&self.biases, 0)?.unsqueeze(0)?;
        Ok(Conv1x1 { weight: self.hidden.clone(), bias: linear(&biases, &self.hidden, None)?.squeeze(0)? })
    }
}

impl Head for SegFormerHead {
    fn forward(&self, stages: &[StageMap], mode: Mode) -> CandleResult<Tensor> {
        let (maps, output) = (self.projections.project(stages)?, self.output.clone());
        let images = maps.first().map_or(Ok(0), |map| map.tokens.dim(0))?;
        let dropped = drop_channels(images, self.hidden.dim(0)?, self.dropout, mode);
        let head = MultiScaleHead { maps, hidden: self.hidden()?, norm: self.norm.step(mode), dropped, output };
        let (y, moments) = head.forward()?;
        let (batch, _, h, w) = y.dims4()?;
        self.norm.follow(&moments, batch * h * w, mode)?;
        Ok(y)
    }

    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> CandleResult<()> {
        self.projections.fold(how, mergings)
    }
}
