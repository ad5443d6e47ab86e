//! What ends a stage: the task-adapting block, and the gate that mixes the TPC feature into the tasks' tokens.

use super::{Gate, StageView, TADBlock, TaskTokens, TpcReading};
use crate::layers::{Fold, Mode, TrainingPass};
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

    /// Folds the block's paths, or drops what was folded.
    pub(super) fn fold(&mut self, how: Fold) -> Result<()> {
        self.block.fold(how)
    }

    /// Shared tokens on, and each task's; made again in backward where the thread was asked to.
    pub(super) fn forward(&self, x: Tokens, mode: Mode) -> Result<Ended> {
        let Mode::Train(pass) = mode else { return self.run(&x, mode) };
        // What is made again draws the same: from a generator of its own, which keeping or not makes no difference to.
        let seed = pass.seed();
        if GradientCheckpointing::asked() == GradientCheckpointing::Off {
            return self.run(&x, Mode::Train(&TrainingPass::seeded(seed)));
        }
        let (end, size) = (self.clone(), x.size);
        let again = move || Ok(end.run(&x, Mode::Train(&TrainingPass::seeded(seed)))?.into_tensors());
        Ended::of(ops::recomputed(again)?, self.tasks, size)
    }

    fn run(&self, x: &Tokens, mode: Mode) -> Result<Ended> {
        let (shared, tasks) = self.block.forward(x, mode)?;
        Ok(Ended { shared, tasks: self.mix(tasks)? })
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

/// What ends a stage: the shared tokens, and each task's `[B, N, C]`.
pub(super) struct Ended {
    pub(super) shared: Tokens,
    pub(super) tasks: Vec<Tensor>,
}

impl Ended {
    /// As the tensors of a step that is made again; [`Ended::of`] reads them.
    fn into_tensors(self) -> Vec<Tensor> {
        let Tokens { patches, prompts, .. } = self.shared;
        std::iter::once(patches).chain(self.tasks).chain(prompts).collect()
    }

    /// What [`Ended::into_tensors`] gave, of a map of `size` and so many tasks.
    fn of(tensors: Vec<Tensor>, tasks: usize, size: (usize, usize)) -> Result<Self> {
        let mut tensors = tensors.into_iter();
        let Some(patches) = tensors.next() else { candle_core::bail!("the end of a stage: expected tokens, got none") };
        let tasks = tensors.by_ref().take(tasks).collect();
        Ok(Self { shared: Tokens { patches, prompts: tensors.next(), size }, tasks })
    }
}
