//! A stage of the encoder: Swin blocks, the task-adapting block with its gate, patch merging.

use super::stage_end::StageEnd;
use super::{Method, Prompts, TADBlock, TaskPaths};
use crate::layers::{FeatureMap, Fold, LayerNorm, Mode, PatchMerging, StageMap};
use crate::params::{Group, Weights};
use crate::swin::{BlockConfig, StagePlan, SwinConfig, SwinStage, Tokens};
use crate::task::TaskSet;
use candle_core::{Error, Result};
use candle_nn::init::{ONE, ZERO};

/// One stage: shared tokens in; shared tokens, and each task's, out.
#[derive(Debug)]
pub struct TADStage {
    body: SwinStage,
    end: Option<StageEnd>,
}

impl TADStage {
    /// Stage `i`, from the model's `weights`.
    ///
    /// # Errors
    /// As [`StagePlan::new`]; weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(i: usize, swin: &SwinConfig, method: &Method, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let plan = StagePlan::new(swin, i, method.block_low_rank(i)).map_err(Error::wrap)?;
        let here = weights.pp("layers").pp(i);
        let last = plan.depth() - 1;
        let (body, end) = match &method.task_paths {
            TaskPaths::Shared => (SwinStage::new(&plan, plan.depth(), weights)?, None),
            TaskPaths::PerTask(paths) => {
                let mut norms = prompt_norms(&plan, paths.prompts, &here)?;
                let body = SwinStage::new(&plan, last, weights)?;
                let place = here.pp("blocks").pp(last);
                let config = plan.block(last).map_err(Error::wrap)?;
                let block = TADBlock::new(config, paths, tasks, norms.pop(), &place)?;
                (body, Some(StageEnd::new(block, paths.prompts.gate(), tasks.len(), &here)?))
            }
        };
        Ok(Self { body, end })
    }

    /// Folds its blocks' paths, or drops what was folded.
    ///
    /// # Errors
    /// As [`SwinStage::fold`].
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        self.body.fold(how)?;
        self.end.as_mut().map_or(Ok(()), |end| end.fold(how))
    }

    /// The patch merging that is still to come for the tasks' maps, where they have their own.
    pub fn task_merging(&self) -> Option<&PatchMerging> {
        self.end.as_ref().and_then(|_| self.body.merging())
    }

    /// Shared tokens on to the next stage, and each task's map; `None` where tasks share them.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says; prompts that the tasks do not divide.
    pub fn forward(&self, x: Tokens, mode: Mode) -> Result<(Tokens, Option<Vec<StageMap>>)> {
        let x = self.body.forward(x, mode)?;
        let (x, tasks) = match &self.end {
            None => (x, None),
            Some(end) => end.forward(x, mode).map(|(x, tasks)| (x, Some(tasks)))?,
        };
        let tasks = tasks.map(|tasks| tasks.into_iter().map(|tokens| self.body.map(tokens, x.size)).collect());
        let FeatureMap { tokens: patches, size } = self.body.map(x.patches, x.size).features()?;
        Ok((Tokens { patches, prompts: x.prompts, size }, tasks))
    }
}

/// One norm for each block, as the released model holds them; those outside the task-adapting block are stored and unused. Without a
/// low-rank path at proj, where the normed feature enters, there are none.
fn prompt_norms(plan: &StagePlan, prompts: Prompts, here: &Weights) -> Result<Vec<LayerNorm>> {
    let BlockConfig { channels, low_rank, .. } = plan.block(0).map_err(Error::wrap)?;
    let read = prompts != Prompts::None && low_rank.proj.is_some();
    let norm = |j: usize| {
        let vb = here.pp("blocks").pp(j).pp("attn").adapter(Group::PromptNorms).pp("prompt_norm");
        Ok(LayerNorm::new(vb.get_with_hints(channels, "weight", ONE)?, vb.get_with_hints(channels, "bias", ZERO)?))
    };
    (0..if read { plan.depth() } else { 0 }).map(norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// Both were panics.
    #[test]
    fn a_stage_that_is_not_there_or_has_no_blocks_is_refused() -> crate::Result<()> {
        let (method, tasks) = (Method::tadformer(4), "sal=1".parse()?);
        let refused = |i: usize, swin: &SwinConfig| {
            let weights = Weights::random(0, DType::F32, &Device::Cpu);
            TADStage::new(i, swin, &method, &tasks, &weights).map(drop).unwrap_err().to_string()
        };
        let message = refused(4, &SwinConfig::tiny());
        assert!(message.contains("`stage`: expected 0 to 3, got 4"), "{message}");
        let message = refused(1, &SwinConfig { depths: vec![2, 0, 6, 2], ..SwinConfig::tiny() });
        assert!(message.contains("`depths`: expected 1 to 256, got 0"), "{message}");
        Ok(())
    }
}
