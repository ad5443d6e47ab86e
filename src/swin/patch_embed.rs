//! From pixels to tokens.

use super::SwinConfig;
use crate::layers::{FeatureMap, LayerNorm, layer_norm};
use crate::ops;
use crate::params::{Pretrained, Weights};
use candle_core::{Result, Tensor};
use candle_nn::Init;

/// A convolution of patches that do not overlap, then a layer norm: `[B, 3, H, W]` to `[B, h*w, C]`.
#[derive(Clone, Debug)]
pub struct PatchEmbed {
    weight: Tensor,
    bias: Tensor,
    norm: LayerNorm,
    patch: usize,
}

impl PatchEmbed {
    /// From `weights` at `patch_embed`.
    ///
    /// # Errors
    /// A configuration that cannot work, as [`SwinConfig::check`] tells; weights that are missing or of another shape; a name made twice.
    pub fn new(config: &SwinConfig, weights: &Weights) -> Result<Self> {
        config.check().map_err(candle_core::Error::wrap)?;
        let (c, p) = (config.embed_dim, config.patch_size);
        let (proj, group) = (weights.pp("proj"), Pretrained::PatchEmbedding);
        let init = Init::Randn { mean: 0.0, stdev: ((3 * p * p) as f64).powf(-0.5) };
        Ok(Self {
            weight: proj.pretrained(group, (c, 3, p, p), "weight", init)?,
            bias: proj.bias(group, c)?,
            norm: layer_norm(c, &weights.pp("norm"))?,
            patch: p,
        })
    }

    /// Images to a map of their tokens; sides that patches do not divide are padded with zeros on the right and bottom.
    ///
    /// # Errors
    /// Images that are not `[B, 3, H, W]`.
    pub fn forward(&self, images: &Tensor) -> Result<FeatureMap> {
        let (patches, size) = ops::split_patches(images, self.patch)?;
        let tokens = ops::linear(&patches, &self.weight.flatten_from(1)?, Some(&self.bias))?;
        Ok(FeatureMap { tokens: self.norm.forward(&tokens)?, size })
    }
}
