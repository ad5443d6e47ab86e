//! What ends a stage: the task-adapting block, and the gate that mixes the TPC feature into the tasks' tokens.

use super::{Gate, StageView, TADBlock, TaskTokens, TpcReading};
use crate::layers::{Merge, Mode, TrainingPass};
use crate::ops;
use crate::ops::GradientCheckpointing;
use crate::params::{Group, Weights};
use crate::swin::Tokens;
use candle_core::{Result, Tensor};
use candle_nn::init::ZERO;

/// The task-adapting block and its gate.
#[derive(Clone, Debug)]
pub(super) struct StageEnd {
    block: TADBlock,
    mix: Mix,
    tasks: usize,
}

/// How the TPC feature enters a task's tokens.
#[derive(Clone, Debug)]
enum Mix {
    Gate(Tensor, TpcReading),
    Average(TpcReading),
    None,
}

impl StageEnd {
    /// After `block`, from `weights` at the stage's place.
    pub(super) fn new(block: TADBlock, gate: Gate, tasks: usize, weights: &Weights) -> Result<Self> {
        let mix = match gate {
            Gate::Learned { reading } => {
                Mix::Gate(weights.adapter(Group::Gates).get_with_hints(1, "gate", ZERO)?, reading)
            }
            Gate::Average { reading } => Mix::Average(reading),
            Gate::None => Mix::None,
        };
        Ok(Self { block, mix, tasks })
    }

    /// Folds the block's paths, or restores them.
    pub(super) fn merge(&mut self, how: Merge) -> Result<()> {
        self.block.merge(how)
    }

    /// Shared tokens on, and each task's tokens `[B, N, C]`.
    pub(super) fn forward(&self, x: Tokens, mode: Mode) -> Result<(Tokens, Vec<Tensor>)> {
        let Mode::Train(pass) = mode else { return self.run(&x, mode) };
        // What is made again draws the same: from a generator of its own, which keeping or not makes no difference to.
        let (seed, checkpoint, size) = (pass.seed(), pass.gradient_checkpointing(), x.size);
        let pass = move || TrainingPass::seeded(seed).with_gradient_checkpointing(checkpoint);
        if checkpoint == GradientCheckpointing::Off {
            return self.run(&x, Mode::Train(&pass()));
        }
        let end = self.clone();
        let again = move || {
            let (x, tasks) = end.run(&x, Mode::Train(&pass()))?;
            Ok([vec![x.patches], tasks, x.prompts.into_iter().collect()].concat())
        };
        let mut made = ops::recomputed(again)?.into_iter();
        let Some(patches) = made.next() else { candle_core::bail!("a block without tokens") };
        let tasks = made.by_ref().take(self.tasks).collect();
        Ok((Tokens { patches, prompts: made.next(), size }, tasks))
    }

    fn run(&self, x: &Tokens, mode: Mode) -> Result<(Tokens, Vec<Tensor>)> {
        let (x, tasks) = self.block.forward(x, mode)?;
        Ok((x, self.mix(tasks)?))
    }

    /// What the block and its gate look at.
    pub(super) fn view(&self, x: &Tokens) -> Result<StageView> {
        let (tasks, filters) = self.block.view(x)?;
        let gate = self.share(&tasks.tokens)?.filter(|_| tasks.condition.is_some()).map(|(share, _)| share);
        Ok(StageView { attention: tasks.attention()?, filters, gate })
    }

    /// The share of the TPC feature, `[1]` of the tokens' type and place, where it is mixed in.
    fn share(&self, tokens: &Tensor) -> Result<Option<(Tensor, TpcReading)>> {
        Ok(match &self.mix {
            Mix::None => None,
            Mix::Average(reading) => {
                Some((Tensor::new(&[0.5f32], tokens.device())?.to_dtype(tokens.dtype())?, *reading))
            }
            Mix::Gate(gate, reading) => Some((candle_nn::ops::sigmoid(gate)?, *reading)),
        })
    }

    /// Each task's tokens `[B, N, C]`, the TPC feature mixed in.
    fn mix(&self, TaskTokens { condition, tokens, grid }: TaskTokens) -> Result<Vec<Tensor>> {
        match condition.zip(self.share(&tokens)?) {
            Some((condition, (share, reading))) => ops::task_mix(&tokens, &condition, &share, &grid, reading),
            None => tokens.chunk(self.tasks, 0),
        }
    }
}
