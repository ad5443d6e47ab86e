//! The one Swin block; with rank 0 and no prompts it is the plain one.

use super::block_config::{BlockConfig, PromptUpdate, Tokens};
use super::{BlockLowRank, WindowAttention};
use crate::layers::{LayerNorm, Merge, Mlp, MlpLowRank, Mode, drop_path, layer_norm};
use crate::ops;
use crate::ops::{AttendedParts, MlpHalf, MlpOutput, MlpParts, WindowGrid, WithParts};
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// `y = x + attention(norm1(x))`, `y + MLP(norm2(y))`, with prompts attending in every window.
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

/// A block's result with the intermediate values that task-adapting parts build on.
pub struct BlockParts {
    /// What the next block reads.
    pub tokens: Tokens,
    /// How the map was cut.
    pub grid: WindowGrid,
    /// What attention left in each window.
    pub attended: AttendedParts,
    /// The MLP's products for the patches.
    pub mlp: MlpParts,
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

    /// Folds its linears' paths, or restores them; a block whose parts somebody reads keeps those apart.
    ///
    /// # Errors
    /// As [`LowRankLinear::merge`](crate::layers::LowRankLinear::merge).
    pub fn merge(&mut self, how: Merge, parts: WithParts) -> Result<()> {
        self.attention.merge(how, parts)?;
        self.mlp.merge(how, parts)
    }

    /// Tokens to tokens.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says.
    pub fn forward(&self, x: &Tokens, mode: Mode) -> Result<Tokens> {
        Ok(self.halves(x, WithParts::No, mode)?.0)
    }

    /// [`SwinBlock::forward`] with the values that task-adapting parts build on.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says.
    pub fn forward_parts(&self, x: &Tokens, mode: Mode) -> Result<BlockParts> {
        let (tokens, attended, mlp) = self.halves(x, WithParts::Yes, mode)?;
        let (Some(attended), Some(mlp)) = (attended, mlp) else { candle_core::bail!("a block without its parts") };
        Ok(BlockParts { tokens, grid: self.attention.grid(x.size)?, attended, mlp })
    }

    fn halves(
        &self,
        x: &Tokens,
        parts: WithParts,
        mode: Mode,
    ) -> Result<(Tokens, Option<AttendedParts>, Option<MlpParts>)> {
        mode.gradient_checkpointing().run(|| self.both_halves(x, parts, mode))
    }

    fn both_halves(
        &self,
        x: &Tokens,
        parts: WithParts,
        mode: Mode,
    ) -> Result<(Tokens, Option<AttendedParts>, Option<MlpParts>)> {
        let images = x.patches.dim(0)?;
        let attended = self.attention.half(x, &self.norm1, self.drop_path(images, mode), parts, mode)?;
        let half = MlpHalf {
            x: attended.patches,
            norm: self.norm2.clone(),
            fc1: self.mlp.fc1.map(mode),
            fc2: self.mlp.fc2.map(mode),
            keep: self.drop_path(images, mode),
            parts,
        };
        let MlpOutput { y, parts: mlp } = half.forward()?;
        let prompts = match (&x.prompts, attended.prompts) {
            (Some(prompts), Some(attended)) => Some(self.update_prompts(prompts, attended, mode)?),
            _ => None,
        };
        Ok((Tokens { patches: y, prompts, size: x.size }, attended.parts, mlp))
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
