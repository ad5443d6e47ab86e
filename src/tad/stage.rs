//! A stage of the encoder: Swin blocks, the task-adapting block with its gate, patch merging.

use super::stage_end::StageEnd;
use super::{Method, Prompts, StageView, TADBlock, TaskPaths};
use crate::layers::{FeatureMap, LayerNorm, Merge, Mode};
use crate::layers::{PatchMerging, StageMap};
use crate::params::{Group, Weights};
use crate::swin::{StagePlan, SwinConfig, SwinStage, Tokens};
use crate::task::TaskSet;
use candle_core::Result;
use candle_nn::init::{ONE, ZERO};

/// One stage: shared tokens in; shared tokens, and each task's, out.
#[derive(Debug)]
pub struct TADStage {
    body: SwinStage,
    end: Option<StageEnd>,
}

impl TADStage {
    /// Stage `i` of a configuration that was checked, from the model's `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(i: usize, swin: &SwinConfig, method: &Method, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let plan = StagePlan::new(swin, i, method.block_low_rank(i));
        let here = weights.pp("layers").pp(i);
        let last = plan.depth() - 1;
        let (body, end) = match &method.task_paths {
            TaskPaths::Shared => (SwinStage::new(&plan, plan.depth(), weights)?, None),
            TaskPaths::PerTask(paths) => {
                let mut norms = prompt_norms(&plan, paths.prompts, &here)?;
                let body = SwinStage::new(&plan, last, weights)?;
                let place = here.pp("blocks").pp(last);
                let block = TADBlock::new(plan.block(last), paths, tasks, norms.pop(), &place)?;
                (body, Some(StageEnd::new(block, paths.prompts.gate(), tasks.len(), &here)?))
            }
        };
        Ok(Self { body, end })
    }

    /// Folds its blocks' paths, or restores them.
    ///
    /// # Errors
    /// As [`SwinStage::merge`].
    pub fn merge(&mut self, how: Merge) -> Result<()> {
        self.body.merge(how)?;
        self.end.as_mut().map_or(Ok(()), |end| end.merge(how))
    }

    /// The patch merging that is still to come for the tasks' maps, where they have their own.
    pub fn task_merging(&self) -> Option<&PatchMerging> {
        self.end.as_ref().and_then(|_| self.body.merging())
    }

    /// What the task-adapting block looks at on these tokens, in evaluation; `None` where tasks share theirs.
    pub(super) fn view(&self, x: Tokens) -> Result<Option<StageView>> {
        let Some(end) = &self.end else { return Ok(None) };
        end.view(&self.body.forward(x, Mode::Eval)?).map(Some)
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
    let read = prompts != Prompts::None && plan.block(0).low_rank.proj.is_some();
    let norm = |j: usize| {
        let vb = here.pp("blocks").pp(j).pp("attn").adapter(Group::PromptNorms).pp("prompt_norm");
        let channels = plan.block(j).channels;
        Ok(LayerNorm::new(vb.get_with_hints(channels, "weight", ONE)?, vb.get_with_hints(channels, "bias", ZERO)?))
    };
    (0..if read { plan.depth() } else { 0 }).map(norm).collect()
}
