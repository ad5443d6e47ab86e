//! Patch merging: a quarter of the tokens, twice the channels.

use super::{FeatureMap, LayerNorm};
use crate::ops;
use crate::params::{Pretrained, Weights};
use candle_core::{Result, Tensor};
use candle_nn::Init;

/// Patch merging at the end of a stage: a quarter of the tokens, twice the channels.
///
/// `reduction(norm(2 x 2 neighbours))`, odd maps padded with zeros.
///
/// # Shapes
/// `[b, H*W, C]` to `[b, ceil(H/2)*ceil(W/2), 2C]`.
#[derive(Clone, Debug)]
pub struct PatchMerging {
    norm: LayerNorm,
    reduction: Tensor,
}

impl PatchMerging {
    /// For maps of `channels`, from `weights` at `layers.I+1.downsample`, I the stage that it ends.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let (from, to) = (4 * channels, 2 * channels);
        let init = Init::Randn { mean: 0.0, stdev: (from as f64).powf(-0.5) };
        let reduction = weights.pp("reduction").pretrained(Pretrained::Reductions, (to, from), "weight", init)?;
        Ok(Self { norm: super::layer_norm(from, &weights.pp("norm"))?, reduction })
    }

    /// The merged map.
    ///
    /// # Errors
    /// A map of other channels; tokens of another number than its size says.
    pub fn forward(&self, map: &FeatureMap) -> Result<FeatureMap> {
        self.forward_with(map, &self.reduction)
    }

    /// `reduction(norm(neighbours))` with another weight `[out, 4C]` in the reduction's place.
    pub(super) fn forward_with(&self, map: &FeatureMap, weight: &Tensor) -> Result<FeatureMap> {
        let tokens = ops::merge_linear(&map.tokens, map.size, &self.norm, weight)?;
        Ok(FeatureMap { tokens, size: Self::merged(map.size) })
    }

    /// A linear map `[out, 2C]` of the merged map as one of the normed neighbours, `[out, 4C]`.
    pub(super) fn fold(&self, weight: &Tensor) -> Result<Tensor> {
        ops::linear(weight, &self.reduction.t()?, None)
    }

    /// The size of a merged map.
    pub(super) fn merged((h, w): (usize, usize)) -> (usize, usize) {
        (h.div_ceil(2), w.div_ceil(2))
    }
}
