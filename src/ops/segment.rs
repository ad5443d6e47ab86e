//! Steps of many tensors in and out, with a backward of their own.
//!
//! Candle's own ops take three tensors, give one, keep every value between them until the end, and add each gradient to zeros
//! first. A segment is a stretch of the model that keeps what its backward needs and no more. Candle sees it as one node of its
//! graph (`node.rs`), or not at all where a tape records it (`tape.rs`).

use super::cpu::{Real, by_float, is_fused};
use super::node;
use super::shapes::Shapes;
use super::tape::{self, State};
use super::trace::{self, Pass};
use candle_core::{CpuStorage, Device, Result, Shape, Tensor, TensorId, Var};
use std::collections::HashMap;

/// A stretch of the model by candle's primitives: its tensors, what has to hold of them, and what is made of them.
pub(super) trait Composed: Sized {
    /// As it appears in errors.
    fn name(&self) -> &'static str;

    /// Every tensor that the outputs may depend on by way of a variable; the first one's device and float type are the stretch's.
    fn inputs(&self) -> Vec<&Tensor>;

    /// Whether all tensors are what either definition takes for granted: kernels write into fresh memory.
    fn check(&self, shapes: Shapes) -> Result<()>;

    /// The outputs.
    fn composed(&self) -> Result<Vec<Tensor>>;

    /// The same with tensors whose values lie in order, as kernels read them.
    fn contiguous(self) -> Result<Self>;
}

/// A stretch of the model that knows its own backward.
pub(super) trait Segment<T: Real>: Composed + Send + Sync + 'static {
    /// What backward needs beside the inputs.
    type Saved: Send;

    /// The outputs, and what backward needs; the latter is made only where `keep` says so.
    fn forward(&self, keep: Keep) -> Result<Passed<T, Self::Saved>>;

    /// Gives `grads` the gradient of every tracked input, from the outputs' (`None` for an output that nothing reads).
    fn backward(&self, saved: Self::Saved, outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()>;
}

/// A segment's outputs, and what backward needs.
pub(super) type Passed<T, S> = (Vec<Output<T>>, Option<S>);

/// One of a segment's outputs.
pub(super) struct Output<T> {
    pub(super) values: Vec<T>,
    pub(super) shape: Shape,
}

impl<T: Real> Output<T> {
    pub(super) fn new(values: Vec<T>, shape: impl Into<Shape>) -> Self {
        Self { values, shape: shape.into() }
    }

    /// As a tensor that a tape's later steps go back to.
    pub(super) fn into_leaf(self) -> Result<Tensor> {
        Var::from_vec(self.values, self.shape, &Device::Cpu).map(Var::into_inner)
    }

    /// As candle stores it.
    pub(super) fn into_storage(self) -> (CpuStorage, Shape) {
        (T::to_cpu_storage_owned(self.values), self.shape)
    }

    fn into_tensor(self) -> Result<Tensor> {
        Tensor::from_vec(self.values, self.shape, &Device::Cpu)
    }
}

/// Whether a forward pass keeps what backward needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It does.
    All,
    /// It does not: nothing trains, or backward will make the pass again.
    Nothing,
}

/// Gradients of a segment's inputs.
#[derive(Default)]
pub(super) struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// Gives an input its gradient.
    pub(super) fn give(&mut self, input: &Tensor, gradient: Tensor) -> Result<()> {
        if gradient.dims() != input.dims() {
            candle_core::bail!("a gradient of {:?} for an input of {:?}", gradient.dims(), input.dims())
        }
        self.give_id(input.id(), gradient)
    }

    /// [`Gradients::give`] where only the input's name in the graph is at hand.
    pub(super) fn give_id(&mut self, input: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&input) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(input, sum);
        Ok(())
    }

    /// Hands an input's gradient over, where it has one.
    pub(super) fn take(&mut self, input: TensorId) -> Option<Tensor> {
        self.0.remove(&input)
    }

    /// Gives an input that leads to a variable its gradient, from values; in the input's own float type, which a stored weight's may be.
    pub(super) fn give_values<T: Real>(&mut self, input: &Tensor, values: Vec<T>) -> Result<()> {
        if !input.track_op() {
            return Ok(());
        }
        self.give(input, Tensor::from_vec(values, input.dims(), &Device::Cpu)?.to_dtype(input.dtype())?)
    }
}

/// Checks a stretch of the model, and makes its outputs by the definition that is to run.
pub(super) fn apply<S: Segment<f32> + Segment<f64>>(
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
    drop(op.moves(|| trace::segment_bytes(segment, &passed.0)));
    Ok(passed)
}

/// The output of a segment that has one.
pub(super) fn only(mut outputs: Vec<Tensor>) -> Result<Tensor> {
    match outputs.pop() {
        Some(output) if outputs.is_empty() => Ok(output),
        _ => candle_core::bail!("expected a segment of one output, got {}", outputs.len() + 1),
    }
}

/// Whether a segment's intermediate values are kept for backward or made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientCheckpointing {
    /// Kept.
    #[default]
    Off,
    /// Made again in backward from the segment's inputs: less memory, more time, the same gradients.
    On,
}

/// A pass that was made and has its backward before it.
pub(super) trait Step: Send {
    /// As it appears in errors.
    fn name(&self) -> &'static str;

    /// What the outputs depend on.
    fn inputs(&self) -> Vec<&Tensor>;

    /// Outputs' gradients to inputs'.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<Gradients>;
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
        drop(op.moves(|| read + trace::bytes(self.segment.inputs().into_iter().chain(grads.0.values()))));
        Ok(grads)
    }
}
