//! The one place that runs a step: checks it, chooses the definition, and hands its outputs to a tape or to candle's graph.

use super::checkpointing::GradientCheckpointing;
use super::definition::{Definition, Runs};
use super::gradients::Gradients;
use super::output::Output;
use super::seeds;
use super::step::{CpuKernel, Keep, Made, Passed, Step};
use super::tape::{self, State};
use super::trace::{self, Pass};
use super::{leaves, node};
use crate::ops::cpu::Real;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::marker::PhantomData;

/// Checks a step and makes its outputs, by its kernel where it has one for the device and the float type of its first tensor.
pub(in crate::ops) fn apply<S: CpuKernel<f32> + CpuKernel<f64>>(step: S) -> Result<Vec<Tensor>> {
    let (inputs, runs) = checked(&step)?;
    match runs {
        Runs::CpuF32 => run::<S, OnCpu<f32>>(step, inputs),
        Runs::CpuF64 => run::<S, OnCpu<f64>>(step, inputs),
        Runs::Composed => composed(step, inputs),
    }
}

/// By candle's primitives; where nothing asks for more, the outputs stand in candle's graph as these made them.
fn composed<S: Step>(step: S, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    match (tape::state(), GradientCheckpointing::asked()) {
        (State::None, GradientCheckpointing::Off) => {
            let op = trace::op(step.name(), Pass::Forward, Definition::Composed);
            let outputs = ByCandle::outputs(&step)?;
            drop(op.moves(|| trace::bytes(inputs.iter().chain(&outputs))));
            Ok(outputs)
        }
        _ => run::<S, ByCandle>(step, inputs),
    }
}

/// A step's tensors and what runs it, where all of them fit.
fn checked<S: Step>(step: &S) -> Result<(Vec<Tensor>, Runs)> {
    let inputs = step.inputs()?;
    let Some(first) = inputs.first() else { candle_core::bail!("{}: expected tensors, got none", step.name()) };
    step.check(Shapes::of(step.name(), first)?)?;
    let runs = Runs::of(first);
    Ok((inputs, runs))
}

/// The two passes of a step by one of its definitions.
trait Passes<S: Step>: Send + 'static {
    const DEFINITION: Definition;

    /// What backward needs beside the inputs.
    type Saved: Send;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Self::Saved>>;

    fn backward(step: &S, saved: Self::Saved, outputs: Vec<Option<Tensor>>) -> Result<Gradients>;

    /// Of a step's inputs, the tensors that backward gives gradients of.
    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor>;
}

/// By the step's kernels.
struct OnCpu<T>(PhantomData<T>);

impl<T: Real, S: CpuKernel<T>> Passes<S> for OnCpu<T> {
    const DEFINITION: Definition = Definition::Fused;

    type Saved = S::Saved;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Self::Saved>> {
        step.forward(keep)
    }

    fn backward(step: &S, saved: Self::Saved, outputs: Vec<Option<Tensor>>) -> Result<Gradients> {
        let mut grads = Gradients::default();
        step.backward(saved, outputs, &mut grads)?;
        Ok(grads)
    }

    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor> {
        inputs
    }
}

/// By candle's primitives all the way down, whose graph lives from the step's inputs to its outputs and goes when its backward is made.
struct ByCandle;

impl ByCandle {
    fn outputs<S: Step>(step: &S) -> Result<Vec<Tensor>> {
        Definition::Composed.run(|| tape::paused(|| step.composed()))
    }
}

impl<S: Step> Passes<S> for ByCandle {
    const DEFINITION: Definition = Definition::Composed;

    /// The outputs with their graph.
    type Saved = Vec<Tensor>;

    fn forward(step: &S, keep: Keep) -> Result<Passed<Vec<Tensor>>> {
        let (outputs, saved) = match keep {
            Keep::Nothing => (Self::outputs(&step.map(&mut |tensor| Ok(tensor.detach()))?)?, None),
            Keep::All => {
                let outputs = Self::outputs(step)?;
                (outputs.iter().map(Tensor::detach).collect(), Some(outputs))
            }
        };
        Ok((outputs.into_iter().map(Output::Tensor).collect(), saved))
    }

    fn backward(_: &S, saved: Vec<Tensor>, outputs: Vec<Option<Tensor>>) -> Result<Gradients> {
        let mut grads = Gradients::default();
        seeds::backward(saved.iter().zip(outputs), &mut grads)?;
        Ok(grads)
    }

    /// Candle goes back to the leaves at once.
    fn leaves(inputs: Vec<Tensor>) -> Vec<Tensor> {
        leaves::of(&inputs)
    }
}

/// Runs a step by one definition: recorded where a tape runs, as one node of the graph where none does, and plainly where no input
/// leads to a variable or nothing goes back.
fn run<S: Step, P: Passes<S>>(step: S, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let tracked = inputs.iter().any(Tensor::track_op);
    let (state, checkpointing) = (tape::state(), GradientCheckpointing::asked());
    if !tracked || state == State::Off {
        let (outputs, _) = forward::<S, P>(&step, Keep::Nothing)?;
        return Ok(outputs.into_iter().map(Output::into_tensor).collect());
    }
    let again = checkpointing == GradientCheckpointing::On || state == State::Forgets;
    let (outputs, saved) = forward::<S, P>(&step, if again { Keep::Nothing } else { Keep::All })?;
    let made = Box::new(Ran::<S, P> { inputs: P::leaves(inputs), step, saved });
    match state {
        State::Records | State::Forgets => tape::record(made, outputs),
        State::None | State::Off => node::graph(made, outputs),
    }
}

fn forward<S: Step, P: Passes<S>>(step: &S, keep: Keep) -> Result<Passed<P::Saved>> {
    let op = trace::op(step.name(), Pass::Forward, P::DEFINITION);
    let passed = P::forward(step, keep)?;
    drop(op.moves(|| {
        trace::bytes(&step.inputs().unwrap_or_default()) + passed.0.iter().map(Output::bytes).sum::<usize>()
    }));
    Ok(passed)
}

/// A step whose forward pass was made, and what that kept.
struct Ran<S: Step, P: Passes<S>> {
    step: S,
    inputs: Vec<Tensor>,
    saved: Option<P::Saved>,
}

impl<S: Step, P: Passes<S>> Made for Ran<S, P> {
    fn name(&self) -> &'static str {
        self.step.name()
    }

    fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// A second backward over the same graph makes the forward pass again, as does one with checkpointing.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<Gradients> {
        let saved = match self.saved.take() {
            Some(saved) => Some(saved),
            None => forward::<S, P>(&self.step, Keep::All)?.1,
        };
        let Some(saved) = saved else {
            candle_core::bail!("{}: backward needs what forward did not keep", self.name())
        };
        let read = trace::bytes(outputs.iter().flatten());
        let op = trace::op(self.name(), Pass::Backward, P::DEFINITION);
        let grads = P::backward(&self.step, saved, outputs)?;
        drop(op.moves(|| read + trace::bytes(self.inputs.iter().chain(grads.values()))));
        Ok(grads)
    }
}
