//! Steps of many tensors in and out, with a backward of their own.
//!
//! Candle's own ops take three tensors, give one, keep every value between them until the end, and add each gradient to zeros
//! first. A segment is a stretch of the model that keeps what its backward needs and no more. Candle sees it as one node of its
//! graph (`node.rs`), or not at all where a tape records it (`tape.rs`).

use crate::ops::cpu::float::Real;
use crate::ops::shapes::Shapes;
use candle_core::{CpuStorage, Device, Result, Shape, Tensor, TensorId, Var};
use std::collections::HashMap;

/// A stretch of the model by candle's primitives: its tensors, what has to hold of them, and what is made of them.
pub(in crate::ops) trait Composed: Sized {
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
pub(in crate::ops) trait Segment<T: Real>: Composed + Send + Sync + 'static {
    /// What backward needs beside the inputs.
    type Saved: Send;

    /// The outputs, and what backward needs; the latter is made only where `keep` says so.
    fn forward(&self, keep: Keep) -> Result<Passed<T, Self::Saved>>;

    /// Gives `grads` the gradient of every tracked input, from the outputs' (`None` for an output that nothing reads).
    fn backward(&self, saved: Self::Saved, outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()>;
}

/// A segment's outputs, and what backward needs.
pub(in crate::ops) type Passed<T, S> = (Vec<Output<T>>, Option<S>);

/// One of a segment's outputs.
pub(in crate::ops) struct Output<T> {
    pub(in crate::ops) values: Vec<T>,
    pub(in crate::ops) shape: Shape,
}

impl<T: Real> Output<T> {
    pub(in crate::ops) fn new(values: Vec<T>, shape: impl Into<Shape>) -> Self {
        Self { values, shape: shape.into() }
    }

    /// As a tensor that a tape's later steps go back to.
    pub(in crate::ops) fn into_leaf(self) -> Result<Tensor> {
        Var::from_vec(self.values, self.shape, &Device::Cpu).map(Var::into_inner)
    }

    /// As candle stores it.
    pub(in crate::ops) fn into_storage(self) -> (CpuStorage, Shape) {
        (T::to_cpu_storage_owned(self.values), self.shape)
    }

    pub(super) fn into_tensor(self) -> Result<Tensor> {
        Tensor::from_vec(self.values, self.shape, &Device::Cpu)
    }
}

/// Whether a forward pass keeps what backward needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Keep {
    /// It does.
    All,
    /// It does not: nothing trains, or backward will make the pass again.
    Nothing,
}

/// Gradients of a segment's inputs.
#[derive(Default)]
pub(in crate::ops) struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// Gives an input its gradient.
    pub(in crate::ops) fn give(&mut self, input: &Tensor, gradient: Tensor) -> Result<()> {
        if gradient.dims() != input.dims() {
            candle_core::bail!("a gradient of {:?} for an input of {:?}", gradient.dims(), input.dims())
        }
        self.give_id(input.id(), gradient)
    }

    /// [`Gradients::give`] where only the input's name in the graph is at hand.
    pub(in crate::ops) fn give_id(&mut self, input: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&input) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(input, sum);
        Ok(())
    }

    /// All gradients.
    pub(super) fn values(&self) -> impl Iterator<Item = &Tensor> {
        self.0.values()
    }

    /// Hands an input's gradient over, where it has one.
    pub(in crate::ops) fn take(&mut self, input: TensorId) -> Option<Tensor> {
        self.0.remove(&input)
    }

    /// Gives an input that leads to a variable its gradient, from values; in the input's own float type, which a stored weight's may be.
    pub(in crate::ops) fn give_values<T: Real>(&mut self, input: &Tensor, values: Vec<T>) -> Result<()> {
        if !input.track_op() {
            return Ok(());
        }
        self.give(input, Tensor::from_vec(values, input.dims(), &Device::Cpu)?.to_dtype(input.dtype())?)
    }
}

/// The output of a segment that has one.
pub(in crate::ops) fn only(mut outputs: Vec<Tensor>) -> Result<Tensor> {
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
pub(in crate::ops) trait Step: Send {
    /// As it appears in errors.
    fn name(&self) -> &'static str;

    /// What the outputs depend on.
    fn inputs(&self) -> Vec<&Tensor>;

    /// Outputs' gradients to inputs'.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<Gradients>;
}
