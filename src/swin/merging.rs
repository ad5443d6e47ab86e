//! Patch merging: a quarter of the tokens, twice the channels.

use crate::layers::LayerNorm;
use crate::ops;
use crate::params::{Pretrained, Weights};
use candle_core::{Result, Tensor};
use candle_nn::Init;

/// `reduction(norm(2 x 2 neighbours))`: `[b, H*W, C]` to `[b, ceil(H/2)*ceil(W/2), 2C]`, odd maps padded with zeros.
#[derive(Clone, Debug)]
pub struct PatchMerging {
    norm: LayerNorm,
    reduction: Tensor,
}

impl PatchMerging {
    /// For maps of `channels`, from `weights` at `layers.I.downsample`.
    pub fn new(channels: usize, weights: &Weights) -> Result<Self> {
        let (from, to) = (4 * channels, 2 * channels);
        let init = Init::Randn { mean: 0.0, stdev: (from as f64).powf(-0.5) };
        let reduction = weights.pp("reduction").pretrained(Pretrained::Reductions, (to, from), "weight", init)?;
        Ok(Self { norm: super::layer_norm(from, &weights.pp("norm"))?, reduction })
    }

    /// Gives the merged tokens and their map's size.
    pub fn forward(&self, tokens: &Tensor, size: (usize, usize)) -> Result<(Tensor, (usize, usize))> {
        let (x, size) = ops::merge_patches(tokens, size)?;
        Ok((ops::linear(&self.norm.forward(&x)?, &self.reduction, None)?, size))
    }
}
