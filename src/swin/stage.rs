//! A stage: blocks at one resolution, then patch merging.

use super::{BlockConfig, BlockLowRank, PromptUpdate, SwinBlock, SwinConfig, Tokens};
use crate::layers::{FeatureMap, Merge, Mode};
use crate::layers::{PatchMerging, StageMap};
use crate::params::Weights;
use candle_core::{Result, Tensor};

/// What one stage is made of, read off a [`SwinConfig`].
#[derive(Clone, Copy, Debug)]
pub struct StagePlan<'a> {
    config: &'a SwinConfig,
    index: usize,
    low_rank: BlockLowRank,
}

impl<'a> StagePlan<'a> {
    /// Stage `index` of `config`, which was checked and has it, its blocks' linears with `low_rank` paths.
    pub fn new(config: &'a SwinConfig, index: usize, low_rank: BlockLowRank) -> Self {
        Self { config, index, low_rank }
    }

    /// Blocks of the stage.
    pub fn depth(&self) -> usize {
        self.config.depths[self.index]
    }

    /// The sizes of block `j`.
    pub fn block(&self, j: usize) -> BlockConfig {
        let (config, i) = (self.config, self.index);
        let last_of_all = i + 1 == config.stages() && j + 1 == self.depth();
        BlockConfig {
            channels: config.channels(i),
            heads: config.num_heads[i],
            window: config.stage_window(i),
            hidden: config.hidden(i),
            shifted: j % 2 == 1,
            drop_path: config.block_drop_path(i, j),
            low_rank: self.low_rank,
            prompts: if last_of_all { PromptUpdate::Attended } else { PromptUpdate::Residual },
        }
    }
}

/// The first blocks of a stage and the patch merging at its end.
#[derive(Debug)]
pub struct SwinStage {
    blocks: Vec<SwinBlock>,
    merging: Option<PatchMerging>,
}

impl SwinStage {
    /// The plan's first `blocks` blocks, from the model's `weights`; the last stage merges nothing.
    ///
    /// Names are timm's: merging stands at the start of the next stage, `layers.I+1.downsample`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn new(plan: &StagePlan, blocks: usize, weights: &Weights) -> Result<Self> {
        let (config, i) = (plan.config, plan.index);
        let places = weights.pp("layers").pp(i).pp("blocks");
        let blocks = (0..blocks).map(|j| SwinBlock::new(plan.block(j), &places.pp(j))).collect::<Result<_>>()?;
        let last = i + 1 == config.stages();
        let merging = if last {
            None
        } else {
            Some(PatchMerging::new(config.channels(i), &weights.pp("layers").pp(i + 1).pp("downsample"))?)
        };
        Ok(Self { blocks, merging })
    }

    /// Folds its blocks' paths, or restores them.
    ///
    /// # Errors
    /// As [`SwinBlock::merge`].
    pub fn merge(&mut self, how: Merge) -> Result<()> {
        self.blocks.iter_mut().try_for_each(|block| block.merge(how))
    }

    /// Runs the blocks.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says.
    pub fn forward(&self, x: Tokens, mode: Mode) -> Result<Tokens> {
        self.blocks.iter().try_fold(x, |x, block| block.forward(&x, mode))
    }

    /// The patch merging at the stage's end, where there is one.
    pub fn merging(&self) -> Option<&PatchMerging> {
        self.merging.as_ref()
    }

    /// A map of the stage with the patch merging at its end still to come, where there is one.
    pub fn map(&self, tokens: Tensor, size: (usize, usize)) -> StageMap {
        StageMap::new(FeatureMap { tokens, size }, self.merging.clone())
    }
}
