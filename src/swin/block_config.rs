//! The sizes of one block, and what flows through it.

use super::BlockLowRank;
use candle_core::Tensor;

/// What flows from block to block: a map's patches, and the prompts.
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
