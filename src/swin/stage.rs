//! A stage: blocks at one resolution, then patch merging.

use super::{BlockConfig, BlockLowRank, PromptUpdate, SwinBlock, SwinConfig, Tokens};
use crate::Error;
use crate::layers::{FeatureMap, Fold, Mode, PatchMerging, StageMap};
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
    /// Stage `index` of `config`, its blocks' linears with `low_rank` paths.
    ///
    /// # Errors
    /// A configuration that cannot work, as [`SwinConfig::check`] tells; a stage that it does not have.
    pub fn new(config: &'a SwinConfig, index: usize, low_rank: BlockLowRank) -> crate::Result<Self> {
        config.check()?;
        if index >= config.stages() {
            return Err(missing("stage", config.stages(), index, "stages count from 0, one for each of `depths`"));
        }
        Ok(Self { config, index, low_rank })
    }

    /// Blocks of the stage.
    pub fn depth(&self) -> usize {
        self.config.depths[self.index]
    }

    /// The sizes of block `j`.
    ///
    /// # Errors
    /// A block that the stage does not have.
    pub fn block(&self, j: usize) -> crate::Result<BlockConfig> {
        let (config, i, depth) = (self.config, self.index, self.depth());
        let cure = "blocks count from 0, as many as `depths` says";
        let drop_path = config.block_drop_path(i, j).ok_or_else(|| missing("block", depth, j, cure))?;
        let last_of_all = i + 1 == config.stages() && j + 1 == depth;
        Ok(BlockConfig {
            channels: config.channels(i),
            heads: config.num_heads[i],
            window: config.stage_window(i),
            hidden: config.hidden(i),
            shifted: j % 2 == 1,
            drop_path,
            low_rank: self.low_rank,
            prompts: if last_of_all { PromptUpdate::Attended } else { PromptUpdate::Residual },
        })
    }
}

/// A `what` that is none of `count`.
fn missing(what: &str, count: usize, got: usize, cure: &str) -> Error {
    Error::config(what, format!("0 to {}", count - 1), got, cure)
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
    /// More blocks than the stage has; weights that are missing or of another shape; a name made twice.
    pub fn new(plan: &StagePlan, blocks: usize, weights: &Weights) -> Result<Self> {
        let (config, i) = (plan.config, plan.index);
        let places = weights.pp("layers").pp(i).pp("blocks");
        let block = |j| SwinBlock::new(plan.block(j).map_err(candle_core::Error::wrap)?, &places.pp(j));
        let blocks = (0..blocks).map(block).collect::<Result<_>>()?;
        let last = i + 1 == config.stages();
        let merging = if last {
            None
        } else {
            Some(PatchMerging::new(config.channels(i), &weights.pp("layers").pp(i + 1).pp("downsample"))?)
        };
        Ok(Self { blocks, merging })
    }

    /// Folds its blocks' paths, or drops what was folded.
    ///
    /// # Errors
    /// As [`SwinBlock::fold`].
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.blocks.iter_mut().try_for_each(|block| block.fold(how))
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// All of these were panics, or blocks that no stage has.
    #[test]
    fn stages_and_blocks_that_are_not_there_are_refused_by_number() -> crate::Result<()> {
        let (tiny, low_rank) = (SwinConfig::tiny(), BlockLowRank::default());
        let refused = |config: &SwinConfig, i| StagePlan::new(config, i, low_rank).map(drop).unwrap_err().to_string();
        assert_eq!(
            refused(&tiny, 4),
            "`stage`: expected 0 to 3, got 4 (stages count from 0, one for each of `depths`)"
        );
        for (depths, field) in [(vec![], "`depths`"), (vec![2, 0, 6, 2], "`depths`"), (vec![2, 2], "`num_heads`")] {
            let message = refused(&SwinConfig { depths, ..SwinConfig::tiny() }, 1);
            assert!(message.starts_with(field), "{message}");
        }
        let plan = StagePlan::new(&tiny, 2, low_rank)?;
        let message = plan.block(6).map(drop).unwrap_err().to_string();
        assert_eq!(message, "`block`: expected 0 to 5, got 6 (blocks count from 0, as many as `depths` says)");
        assert_eq!(plan.block(5)?.prompts, PromptUpdate::Residual);
        let small = SwinConfig { embed_dim: 8, num_heads: vec![1, 2, 4, 8], ..tiny.clone() };
        let weights = Weights::random(0, DType::F32, &Device::Cpu);
        let stage = SwinStage::new(&StagePlan::new(&small, 0, low_rank)?, 3, &weights);
        assert!(stage.map(drop).unwrap_err().to_string().contains("`block`: expected 0 to 1, got 2"));
        Ok(())
    }
}
