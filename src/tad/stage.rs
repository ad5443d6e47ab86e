//! A stage of the encoder: Swin blocks, the task-adapting block, the gate, patch merging.

use super::{Gate, TADBlock, TadConfig, TaskPaths, TaskTokens};
use crate::layers::{LayerNorm, Mode};
use crate::ops;
use crate::params::{Group, Weights};
use crate::swin::{StagePlan, SwinConfig, SwinStage, Tokens};
use crate::task::TaskSet;
use candle_core::{Result, Tensor};
use candle_nn::init::{ONE, ZERO};

/// One stage: shared tokens in; shared tokens, and each task's, out.
#[derive(Debug)]
pub struct TADStage {
    body: SwinStage,
    end: Option<TADBlock>,
    mix: Mix,
}

/// How the TPC feature enters a task's tokens.
#[derive(Debug)]
enum Mix {
    Gate(Tensor),
    Average,
    None,
}

impl TADStage {
    /// Stage `i`, from the model's `weights`.
    pub fn new(i: usize, swin: &SwinConfig, tad: &TadConfig, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let plan = StagePlan::new(swin, i, tad.block_low_rank(i));
        let here = weights.pp("layers").pp(i);
        let last = plan.depth() - 1;
        let (body, end) = match tad.task_paths {
            TaskPaths::Shared => (SwinStage::new(&plan, plan.depth(), weights)?, None),
            TaskPaths::PerTask => {
                let mut norms = prompt_norms(&plan, tad, &here)?;
                let body = SwinStage::new(&plan, last, weights)?;
                let place = here.pp("blocks").pp(last);
                (body, Some(TADBlock::new(plan.block(last), tad, tasks, norms.pop(), &place)?))
            }
        };
        let mix = match tad.gate {
            _ if end.is_none() => Mix::None,
            Gate::Learned => Mix::Gate(here.adapter(Group::Gates).get_with_hints(1, "gate", ZERO)?),
            Gate::Average => Mix::Average,
            Gate::None => Mix::None,
        };
        Ok(Self { body, end, mix })
    }

    /// Shared tokens on to the next stage, and each task's `[T*B, N, C]`, merged alike; `None` where tasks share them.
    pub fn forward(&self, x: Tokens, mode: Mode) -> Result<(Tokens, Option<Tensor>)> {
        let x = self.body.forward(x, mode)?;
        let (x, tasks) = match &self.end {
            None => (x, None),
            Some(block) => {
                let (x, tasks) = block.forward(&x, mode)?;
                (x, Some(self.mix(tasks)?))
            }
        };
        let (patches, size) = self.body.merge(&x.patches, x.size)?;
        let tasks = tasks.map(|tasks| Ok::<_, candle_core::Error>(self.body.merge(&tasks, x.size)?.0)).transpose()?;
        Ok((Tokens { patches, prompts: x.prompts, size }, tasks))
    }

    fn mix(&self, TaskTokens { tpc, tokens }: TaskTokens) -> Result<Tensor> {
        let Some(tpc) = tpc else { return Ok(tokens) };
        match &self.mix {
            Mix::None => Ok(tokens),
            Mix::Average => (tpc + tokens)? * 0.5,
            Mix::Gate(gate) => ops::mix(&tokens, &tpc, &candle_nn::ops::sigmoid(gate)?),
        }
    }
}

/// One norm for each block, as the released model holds them; those outside the task-adapting block are stored and unused.
fn prompt_norms(plan: &StagePlan, tad: &TadConfig, here: &Weights) -> Result<Vec<LayerNorm>> {
    let blocks = if tad.has_prompts() { plan.depth() } else { 0 };
    let norm = |j: usize| {
        let vb = here.pp("blocks").pp(j).pp("attn").adapter(Group::PromptNorms).pp("prompt_norm");
        let channels = plan.block(j).channels;
        Ok(LayerNorm::new(vb.get_with_hints(channels, "weight", ONE)?, vb.get_with_hints(channels, "bias", ZERO)?))
    };
    (0..blocks).map(norm).collect()
}
