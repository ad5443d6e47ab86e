//! Running a step: recorded where a tape runs, else as a node of candle's graph, or plainly.

use super::definition::is_fused;
use super::step::{GradientCheckpointing, Gradients, Keep, Output, Passed, Segment, Step};
use super::tape::State;
use super::trace::Pass;
use super::{node, tape, trace};
use crate::ops::cpu::float::{Real, by_float};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// Checks a stretch of the model, and makes its outputs by the definition that is to run.
pub(in crate::ops) fn apply<S: Segment<f32> + Segment<f64>>(
    segment: S,
    checkpoint: GradientCheckpointing,
) -> Result<Vec<Tensor>> {
    let [first, ..] = segment.inputs()[..] else {
        candle_core::bail!("{}: expected tensors, got none", segment.name())
    };
    segment.check(Shapes::of(segment.name(), first)?)?;
    if !is_fused(first) {
        return segment.composed();
    }
    by_float!(first.dtype(), run(segment.contiguous()?, checkpoint))
}

/// Runs a segment: recorded where a tape runs, as one node of the graph where none does, and plainly where no input leads to a
/// variable.
fn run<T: Real>(segment: impl Segment<T>, checkpoint: GradientCheckpointing) -> Result<Vec<Tensor>> {
    if !segment.inputs().iter().any(|input| input.track_op()) {
        return forward(&segment, Keep::Nothing)?.0.into_iter().map(Output::into_tensor).collect();
    }
    let again = checkpoint == GradientCheckpointing::On || tape::state() == State::Forgets;
    let (outputs, saved) = forward(&segment, if again { Keep::Nothing } else { Keep::All })?;
    let ran = Box::new(Ran { segment, saved });
    match tape::state() {
        State::None => node::graph(ran, outputs.into_iter().map(Output::into_storage).collect()),
        State::Records | State::Forgets => tape::record(ran, outputs),
    }
}

fn forward<T: Real, S: Segment<T>>(segment: &S, keep: Keep) -> Result<Passed<T, S::Saved>> {
    let op = trace::op(segment.name(), Pass::Forward);
    let passed = segment.forward(keep)?;
    drop(op.moves(|| segment_bytes(segment, &passed.0)));
    Ok(passed)
}

/// A segment and what it kept.
struct Ran<T: Real, S: Segment<T>> {
    segment: S,
    saved: Option<S::Saved>,
}

impl<T: Real, S: Segment<T>> Step for Ran<T, S> {
    fn name(&self) -> &'static str {
        self.segment.name()
    }

    fn inputs(&self) -> Vec<&Tensor> {
        self.segment.inputs()
    }

    /// A second backward over the same graph makes the forward pass again, as does one with checkpointing.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<Gradients> {
        let saved = match self.saved.take() {
            Some(saved) => Some(saved),
            None => forward(&self.segment, Keep::All)?.1,
        };
        let Some(saved) = saved else {
            candle_core::bail!("{}: backward needs what forward did not keep", self.name())
        };
        let mut grads = Gradients::default();
        let read = trace::bytes(outputs.iter().flatten());
        let op = trace::op(self.name(), Pass::Backward);
        self.segment.backward(saved, outputs, &mut grads)?;
        drop(op.moves(|| read + trace::bytes(self.segment.inputs().into_iter().chain(grads.values()))));
        Ok(grads)
    }
}

/// The bytes of a segment's forward pass: its inputs and its outputs.
fn segment_bytes<T: Real, S: Segment<T>>(segment: &S, outputs: &[Output<T>]) -> usize {
    let made: usize = outputs.iter().map(|output| size_of_val(output.values.as_slice())).sum();
    trace::bytes(segment.inputs()) + made
}
