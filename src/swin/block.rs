//! The one Swin block; with rank 0 and no prompts it is the plain one.

use super::block_config::{BlockConfig, PromptUpdate, Tokens};
use super::{BlockLowRank, WindowAttention};
use crate::layers::{Fold, LayerNorm, Mlp, MlpLowRank, Mode, drop_path, layer_norm};
use crate::ops;
use crate::ops::{Attended, AttentionHalf, AttentionIntermediates, MlpHalf, MlpIntermediates, WindowGrid};
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// A Swin block in which prompts attend in every window; without prompts and low-rank paths it is the plain one.
///
/// `y = x + attention(norm1(x))`, then `y + MLP(norm2(y))`.
#[derive(Clone, Debug)]
pub struct SwinBlock {
    norm1: LayerNorm,
    /// Attention and its output projection.
    pub attention: WindowAttention,
    /// The norm before the MLP.
    pub norm2: LayerNorm,
    /// The MLP.
    pub mlp: Mlp,
    config: BlockConfig,
}

/// The intermediate values of a block that the tasks' paths build on.
#[derive(Clone, Debug)]
pub(crate) struct BlockIntermediates {
    /// How the map was cut.
    pub(crate) grid: WindowGrid,
    /// In each window: the attended patches, their frozen projection, and the prompts' scores.
    pub(crate) attention: AttentionIntermediates,
    /// The frozen products of the MLP's two layers for the patches.
    pub(crate) mlp: MlpIntermediates,
}

impl SwinBlock {
    /// From `weights` at `layers.I.blocks.J`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(config: BlockConfig, weights: &Weights) -> Result<Self> {
        let BlockLowRank { fc1, fc2, .. } = config.low_rank;
        Ok(Self {
            norm1: layer_norm(config.channels, &weights.pp("norm1"))?,
            attention: WindowAttention::new(&config, &weights.pp("attn"))?,
            norm2: layer_norm(config.channels, &weights.pp("norm2"))?,
            mlp: Mlp::new(config.channels, config.hidden, MlpLowRank { fc1, fc2 }, &weights.pp("mlp"))?,
            config,
        })
    }

    /// The block's sizes.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// Folds its linears' paths, or drops what was folded.
    ///
    /// # Errors
    /// As [`LowRankLinear::fold`](crate::layers::LowRankLinear::fold).
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.attention.fold(how)?;
        self.mlp.fold(how)
    }

    /// Tokens to tokens.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says.
    pub fn forward(&self, x: &Tokens, mode: Mode) -> Result<Tokens> {
        let Attended { patches, prompts } = self.attention_half(x, mode)?.forward()?;
        let y = self.mlp_half(patches, mode)?.forward()?;
        self.tokens(x, y, prompts, mode)
    }

    /// [`SwinBlock::forward`] with the values that the tasks' paths build on.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says.
    pub(crate) fn forward_intermediates(&self, x: &Tokens, mode: Mode) -> Result<(Tokens, BlockIntermediates)> {
        let half = self.attention_half(x, mode)?;
        let grid = half.grid;
        let (Attended { patches, prompts }, attention) = half.forward_intermediates()?;
        let (y, mlp) = self.mlp_half(patches, mode)?.forward_intermediates()?;
        Ok((self.tokens(x, y, prompts, mode)?, BlockIntermediates { grid, attention, mlp }))
    }

    fn attention_half(&self, x: &Tokens, mode: Mode) -> Result<AttentionHalf> {
        self.attention.half(x, &self.norm1, self.drop_path(x.patches.dim(0)?, mode), mode)
    }

    fn mlp_half(&self, x: Tensor, mode: Mode) -> Result<MlpHalf> {
        let (fc1, fc2) = (self.mlp.fc1.map(mode), self.mlp.fc2.map(mode));
        let drop_path = self.drop_path(x.dim(0)?, mode);
        Ok(MlpHalf { x, norm: self.norm2.clone(), fc1, fc2, drop_path })
    }

    /// The block's tokens from its patches and from what its prompts attended to.
    fn tokens(&self, x: &Tokens, patches: Tensor, attended: Option<Tensor>, mode: Mode) -> Result<Tokens> {
        let prompts = match x.prompts.as_ref().zip(attended) {
            Some((prompts, attended)) => Some(self.update_prompts(prompts, attended, mode)?),
            None => None,
        };
        Ok(Tokens { patches, prompts, size: x.size })
    }

    /// `x + drop_path(y)`.
    ///
    /// # Errors
    /// An x and a y of different shapes.
    pub fn residual(&self, x: &Tensor, y: &Tensor, mode: Mode) -> Result<Tensor> {
        x + ops::scale_images(y, self.drop_path(x.dim(0)?, mode).as_deref())?
    }

    /// This pass's factor of each of `images` residuals.
    pub fn drop_path(&self, images: usize, mode: Mode) -> Option<Vec<f64>> {
        drop_path(images, self.config.drop_path, mode)
    }

    /// `prompts` `[B, P, C]` as they came, `attended` `[B, P, C]` averaged over the windows.
    fn update_prompts(&self, prompts: &Tensor, attended: Tensor, mode: Mode) -> Result<Tensor> {
        if self.config.prompts == PromptUpdate::Attended {
            return Ok(attended);
        }
        let update = self.mlp.forward(&self.norm2.forward(&attended)?, mode)?;
        ops::leaf(&self.residual(prompts, &update, mode)?)
    }
}
