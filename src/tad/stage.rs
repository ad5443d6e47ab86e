//! A stage of the encoder: Swin blocks, the task-adapting block with its gate, patch merging.

use super::stage_end::{Ended, StageEnd};
use super::{Method, Prompts, StageView, TADBlock, TaskPaths, TaskPrompt};
use crate::layers::{FeatureMap, Fold, LayerNorm, Mode, PatchMerging, StageMap};
use crate::ops;
use crate::params::{Group, Weights};
use crate::swin::{BlockConfig, StagePlan, SwinConfig, SwinStage, Tokens};
use crate::task::TaskSet;
use candle_core::{Error, Result, Tensor};
use candle_nn::init::{ONE, ZERO};

/// One stage: shared tokens in; shared tokens and prompts for the next stage, and each task's map, out.
#[derive(Debug)]
pub struct TADStage {
    body: SwinStage,
    end: Option<StageEnd>,
    /// The prompts' maps between stages, of which this stage's own is the one of its index.
    prompts: Option<TaskPrompt>,
    index: usize,
}

/// What a stage gives, after its patch merging.
#[derive(Clone, Debug)]
pub struct StageOutput {
    /// The shared tokens, which the next stage starts from.
    pub shared: FeatureMap,
    /// The prompts, with the next stage's channels: `[B, P, C]`.
    pub prompts: Option<Tensor>,
    /// Each task's map; `None` where tasks share the shared tokens.
    pub tasks: Option<Vec<StageMap>>,
}

impl StageOutput {
    /// The map that the decoder of task `t` reads.
    pub fn task(&self, t: usize) -> StageMap {
        let own = self.tasks.as_ref().and_then(|tasks| tasks.get(t));
        own.cloned().unwrap_or_else(|| self.shared.clone().into())
    }
}

impl TADStage {
    /// Stage `i`, from the model's `weights`; `prompts` are those of all stages, where the method has any.
    ///
    /// # Errors
    /// As [`StagePlan::new`]; weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(
        i: usize,
        swin: &SwinConfig,
        method: &Method,
        tasks: &TaskSet,
        prompts: Option<&TaskPrompt>,
        weights: &Weights,
    ) -> Result<Self> {
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
        Ok(Self { body, end, prompts: prompts.cloned(), index: i })
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

    /// What the task-adapting block looks at on these tokens, in evaluation; `None` where tasks share theirs.
    pub(super) fn view(&self, x: Tokens) -> Result<Option<StageView>> {
        let Some(end) = &self.end else { return Ok(None) };
        end.view(&self.body.forward(x, Mode::Eval)?).map(Some)
    }

    /// Shared tokens and prompts for the next stage, and each task's map.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says; prompts that the tasks do not divide; prompts for a stage without
    /// [`TaskPrompt`], or none for one with it.
    pub fn forward(&self, x: Tokens, mode: Mode) -> Result<StageOutput> {
        let x = self.body.forward(x, mode)?;
        let (x, tasks) = match &self.end {
            None => (x, None),
            Some(end) => end.forward(x, mode).map(|Ended { shared, tasks }| (shared, Some(tasks)))?,
        };
        let tasks = tasks.map(|tasks| tasks.into_iter().map(|tokens| self.body.map(tokens, x.size)).collect());
        let shared = self.body.map(x.patches, x.size).features()?;
        Ok(StageOutput { shared, prompts: self.grow(x.prompts)?, tasks })
    }

    /// The prompts with the next stage's channels.
    fn grow(&self, prompts: Option<Tensor>) -> Result<Option<Tensor>> {
        match (&self.prompts, prompts) {
            (Some(grow), Some(prompts)) => Ok(Some(ops::leaf(&grow.next(self.index, &prompts)?)?)),
            (None, None) => Ok(None),
            (None, Some(_)) => candle_core::bail!(
                "stage: expected tokens without prompts, got prompts (give `TADStage::new` the `TaskPrompt`, which grows them)"
            ),
            (Some(_), None) => candle_core::bail!(
                "stage: expected tokens with prompts, got none (`TaskPrompt::first` gives those of the first stage)"
            ),
        }
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
            TADStage::new(i, swin, &method, &tasks, None, &weights).map(drop).unwrap_err().to_string()
        };
        let message = refused(4, &SwinConfig::tiny());
        assert!(message.contains("`stage`: expected 0 to 3, got 4"), "{message}");
        let message = refused(1, &SwinConfig { depths: vec![2, 0, 6, 2], ..SwinConfig::tiny() });
        assert!(message.contains("`depths`: expected 1 to 256, got 0"), "{message}");
        Ok(())
    }

    /// A stage's patches had the next stage's channels and its prompts still their own.
    #[test]
    fn patches_and_prompts_leave_a_stage_with_the_next_ones_channels() -> crate::Result<()> {
        let (method, tasks): (_, TaskSet) = (Method::tadformer(4), "sal=1,depth=1".parse()?);
        let swin = SwinConfig {
            embed_dim: 8,
            depths: vec![1, 1],
            num_heads: vec![1, 2],
            image_size: 64,
            ..SwinConfig::tiny()
        };
        let weights = Weights::random(0, DType::F32, &Device::Cpu);
        let prompts = TaskPrompt::new(2, 8, 2, weights.adapter(Group::Prompts).pp("prompts"))?;
        let stage = TADStage::new(0, &swin, &method, &tasks, Some(&prompts), &weights)?;
        let tokens = |prompts| -> Result<Tokens> {
            Ok(Tokens { patches: Tensor::zeros((1, 256, 8), DType::F32, &Device::Cpu)?, prompts, size: (16, 16) })
        };
        let StageOutput { shared, prompts: grown, tasks } =
            stage.forward(tokens(Some(prompts.first(1)?))?, Mode::Eval)?;
        let grown = grown.ok_or(Error::Msg("prompts are gone".into()))?;
        assert_eq!((shared.tokens.dims(), grown.dims()), ([1, 64, 16].as_slice(), [1, 2, 16].as_slice()));
        assert_eq!(tasks.map(|tasks| tasks.len()), Some(2));

        let shared = TADStage::new(1, &swin, &Method::low_rank(4), &"sal=1".parse()?, None, &weights)?;
        let x = Tokens {
            patches: Tensor::zeros((1, 64, 16), DType::F32, &Device::Cpu)?,
            prompts: Some(grown),
            size: (8, 8),
        };
        let message = shared.forward(x, Mode::Eval).map(drop).unwrap_err().to_string();
        assert!(
            message.contains("stage: expected tokens without prompts") && message.contains("TaskPrompt"),
            "{message}"
        );
        Ok(())
    }
}
