//! The plain backbone: Swin without prompts, adapters or tasks.

use super::{BlockLowRank, PatchEmbed, StagePlan, SwinConfig, SwinStage, Tokens};
use crate::layers::{FeatureMap, Mode};
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// A plain Swin, from images to one map a stage.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::params::Weights;
/// use tadformer::swin::{Swin, SwinConfig};
/// let config = SwinConfig { embed_dim: 8, num_heads: vec![1, 2, 4, 4], ..SwinConfig::tiny() };
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let swin = Swin::new(&config, &weights)?;
/// let stages = swin.forward(&Tensor::zeros((1, 3, 50, 70), DType::F32, &Device::Cpu)?)?;
/// assert_eq!(stages[0].before_merging.tokens.dims(), [1, 13 * 18, 8]);
/// assert_eq!(stages[0].merged.tokens.dims(), [1, 7 * 9, 16]);
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Swin {
    patch_embed: PatchEmbed,
    stages: Vec<SwinStage>,
}

/// A stage's features.
#[derive(Clone, Debug)]
pub struct SwinFeatures {
    /// As timm and detectors take them.
    pub before_merging: FeatureMap,
    /// As transformers and TADFormer take them; equal to the former for the last stage.
    pub merged: FeatureMap,
}

impl Swin {
    /// From `weights` under timm's names.
    ///
    /// # Errors
    /// A configuration that cannot work, as [`SwinConfig::check`] tells; weights that are missing or of another shape.
    pub fn new(config: &SwinConfig, weights: &Weights) -> Result<Self> {
        config.check().map_err(candle_core::Error::wrap)?;
        let stage = |i| {
            let plan = StagePlan::new(config, i, BlockLowRank::default()).map_err(candle_core::Error::wrap)?;
            SwinStage::new(&plan, plan.depth(), weights)
        };
        let stages = (0..config.stages()).map(stage).collect::<Result<_>>()?;
        Ok(Self { patch_embed: PatchEmbed::new(config, &weights.pp("patch_embed"))?, stages })
    }

    /// Features of every stage for images `[B, 3, H, W]` of any size.
    ///
    /// # Errors
    /// Images that are not `[B, 3, H, W]`.
    pub fn forward(&self, images: &Tensor) -> Result<Vec<SwinFeatures>> {
        let FeatureMap { tokens, size } = self.patch_embed.forward(images)?;
        let mut x = Tokens { patches: tokens, prompts: None, size };
        let mut features = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            x = stage.forward(x, Mode::Eval)?;
            let before_merging = FeatureMap { tokens: x.patches.clone(), size: x.size };
            let merged = stage.map(x.patches, x.size).features()?;
            x = Tokens { patches: merged.tokens.clone(), prompts: None, size: merged.size };
            features.push(SwinFeatures { before_merging, merged });
        }
        Ok(features)
    }
}
