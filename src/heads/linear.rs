//! The linear head: one map of all stages' features.

use super::Head;
use super::conv::bias;
use super::projections::Projections;
use crate::layers::{Fold, Mode, PatchMerging, StageMap};
use crate::ops::bilinear;
use crate::params::Weights;
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A linear head has no sizes of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LinearConfig {}

/// A linear probe of all stages: a 1x1 convolution of their features, resized to the finest map's size.
///
/// `W concat(resize(x_i)) + b`, computed as `Σ_i resize(W_i x_i) + b`, W_i the columns of stage i: a 1x1 convolution commutes with resizing.
///
/// # Shapes
/// Maps x_i `[B, N_i, C_i]`, finest first; W_i `[n, C_i]`, b `[n]`; result `[B, n, h, w]` of the finest.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::heads::{Head, LinearHead};
/// use tadformer::layers::{FeatureMap, Mode};
/// use tadformer::params::Weights;
/// let head = LinearHead::new(&[64, 128], 5, &Weights::random(0, DType::F32, &Device::Cpu).pp("head"))?;
/// let fine = FeatureMap { tokens: Tensor::zeros((1, 12 * 16, 64), DType::F32, &Device::Cpu)?, size: (12, 16) };
/// let coarse = FeatureMap { tokens: Tensor::zeros((1, 6 * 8, 128), DType::F32, &Device::Cpu)?, size: (6, 8) };
/// assert_eq!(head.forward(&[fine.into(), coarse.into()], Mode::Eval)?.dims(), [1, 5, 12, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// Source: the linear probes by which backbones are compared; the least that a decoder can be.
#[derive(Debug)]
pub struct LinearHead {
    projections: Projections,
    bias: Tensor,
}

impl LinearHead {
    /// For stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(widths: &[usize], outputs: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            projections: Projections::new(&vec![outputs; widths.len()], widths, weights)?,
            bias: bias(widths.iter().sum(), outputs, &weights.pp("output"))?,
        })
    }
}

impl Head for LinearHead {
    fn forward(&self, stages: &[StageMap], _: Mode) -> Result<Tensor> {
        let mut maps = self.projections.project(stages)?.into_iter();
        let Some(finest) = maps.next() else { candle_core::bail!("linear head: expected a map, got none") };
        let size = finest.size;
        let sum = maps.try_fold(finest.to_nchw()?, |sum, map| sum + bilinear(&map.to_nchw()?, size)?)?;
        sum.broadcast_add(&self.bias.reshape((1, (), 1, 1))?)
    }

    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> Result<()> {
        self.projections.fold(how, mergings)
    }
}
