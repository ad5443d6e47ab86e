//! The one Swin block; with rank 0 and no prompts it is the plain one.

use super::{Attended, BlockLowRank, WindowAttention};
use crate::layers::{LayerNorm, Mlp, MlpLowRank, MlpOutput, Mode, drop_path};
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// What flows from block to block.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[B, H*W, C]`.
    pub patches: Tensor,
    /// `[B, P, C]`, where there are prompts.
    pub prompts: Option<Tensor>,
    /// (H, W).
    pub size: (usize, usize),
}

/// The sizes of one block.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Channels C.
    pub channels: usize,
    /// Attention heads nH.
    pub heads: usize,
    /// Window side M.
    pub window: usize,
    /// Hidden channels of the MLP.
    pub hidden: usize,
    /// Whether windows are shifted by half: every odd block's are.
    pub shifted: bool,
    /// Probability of dropping a residual, in training.
    pub drop_path: f64,
    /// Low-rank paths of its linears.
    pub low_rank: BlockLowRank,
    /// What becomes of its prompts; those of an encoder's very last block nobody reads.
    pub prompts: PromptUpdate,
}

/// What a block does with its prompts besides attending with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptUpdate {
    /// `prompts + MLP(norm2(attended prompts))`: the residual adds the incoming prompts, not the attended ones.
    Residual,
    /// The attended prompts, averaged over the windows, and no more.
    Attended,
}

/// `y = x + attention(norm1(x))`, `y + MLP(norm2(y))`, with prompts attending in every window.
#[derive(Debug)]
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
    /// How the map was cut, the attended tokens as the low-rank path read them, and the prompts' scores.
    pub attended: Attended,
    /// `W a + b` of the output projection for the patches: `[B*nW, N, C]`.
    pub projected: Tensor,
    /// The MLP's products for the patches.
    pub mlp: MlpOutput,
}

impl SwinBlock {
    /// From `weights` at `layers.I.blocks.J`.
    pub fn new(config: BlockConfig, weights: &Weights) -> Result<Self> {
        let BlockLowRank { fc1, fc2, .. } = config.low_rank;
        Ok(Self {
            norm1: super::layer_norm(config.channels, &weights.pp("norm1"))?,
            attention: WindowAttention::new(&config, &weights.pp("attn"))?,
            norm2: super::layer_norm(config.channels, &weights.pp("norm2"))?,
            mlp: Mlp::new(config.channels, config.hidden, MlpLowRank { fc1, fc2 }, &weights.pp("mlp"))?,
            config,
        })
    }

    /// The block's sizes.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// Tokens to tokens.
    pub fn forward(&self, x: &Tokens, mode: Mode) -> Result<Tokens> {
        Ok(self.forward_parts(x, mode)?.tokens)
    }

    /// [`SwinBlock::forward`] with the values that task-adapting parts build on.
    pub fn forward_parts(&self, x: &Tokens, mode: Mode) -> Result<BlockParts> {
        let normed = Tokens {
            patches: self.norm1.forward(&x.patches)?,
            prompts: x.prompts.as_ref().map(|prompts| self.norm1.forward(prompts)).transpose()?,
            size: x.size,
        };
        let Attended { grid, tokens, prompt_scores } = self.attention.forward(&normed, mode)?;
        let frozen = self.attention.proj.pretrained(&tokens)?;
        let dropped = self.attention.proj.dropped(&tokens, mode)?;
        let projected = self.attention.proj.add_low_rank(&frozen, &dropped)?;

        let (p, n) = split_at(&tokens, grid.window())?;
        let y = self.residual(&x.patches, &grid.reverse(&projected.narrow(1, p, n)?)?, mode)?;
        let mlp = self.mlp.forward_parts(&self.norm2.forward(&y)?, mode)?;
        let prompts = match &x.prompts {
            Some(prompts) => Some(self.update_prompts(prompts, &projected.narrow(1, 0, p)?, mode)?),
            None => None,
        };
        Ok(BlockParts {
            tokens: Tokens { patches: self.residual(&y, &mlp.out, mode)?, prompts, size: x.size },
            attended: Attended { grid, tokens: dropped.narrow(1, p, n)?, prompt_scores },
            projected: frozen.narrow(1, p, n)?,
            mlp,
        })
    }

    /// `x + drop_path(y)`.
    pub fn residual(&self, x: &Tensor, y: &Tensor, mode: Mode) -> Result<Tensor> {
        x + drop_path(y, self.config.drop_path, mode)?
    }

    /// `prompts` `[B, P, C]` as they came, `attended` `[B*nW, P, C]` from every window.
    fn update_prompts(&self, prompts: &Tensor, attended: &Tensor, mode: Mode) -> Result<Tensor> {
        let (b, p, c) = prompts.dims3()?;
        let mean = attended.reshape((b, (), p, c))?.mean(1)?;
        if self.config.prompts == PromptUpdate::Attended {
            return Ok(mean);
        }
        let update = self.mlp.forward(&self.norm2.forward(&mean)?, mode)?;
        self.residual(prompts, &update, mode)
    }
}

/// How many rows of a window `[B*nW, P+N, C]` are prompts and how many patches.
fn split_at(tokens: &Tensor, window: usize) -> Result<(usize, usize)> {
    let n = window * window;
    Ok((tokens.dim(1)? - n, n))
}
