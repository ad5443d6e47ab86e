//! Steps of many tensors in and out as one node of candle's graph.
//!
//! Candle's own ops take three tensors, give one, keep every value between them until the end, and add each gradient to zeros
//! first. A segment is a stretch of the model with a backward of its own: it keeps what that needs and no more.
//!
//! Candle sees a root of one value. Its inputs hang from it by ties of three, its outputs are picks from it; values and
//! gradients travel beside the graph in a [`Node`] that all of them share.

use super::cpu::Real;
use super::trace::{self, Pass};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, TensorId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A stretch of the model that knows its own backward.
pub(super) trait Segment<T: Real>: Send + Sync + 'static {
    /// What backward needs beside the inputs.
    type Saved: Send;

    /// As it appears in errors.
    fn name(&self) -> &'static str;

    /// Every tensor that the outputs may depend on by way of a variable.
    fn inputs(&self) -> Vec<&Tensor>;

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
        let sum = match self.0.remove(&input.id()) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(input.id(), sum);
        Ok(())
    }

    /// Gives an input that leads to a variable its gradient, from values.
    pub(super) fn give_values<T: Real>(&mut self, input: &Tensor, values: Vec<T>) -> Result<()> {
        if input.track_op() { self.give(input, Tensor::from_vec(values, input.dims(), &Device::Cpu)?) } else { Ok(()) }
    }
}

/// Runs a segment: as one node of the graph where an input leads to a variable, and plainly where none does.
pub(super) fn run<T: Real, S: Segment<T>>(segment: S, checkpoint: Checkpoint) -> Result<Vec<Tensor>> {
    if !segment.inputs().iter().any(|input| input.track_op()) {
        return forward(&segment, Keep::Nothing)?.0.into_iter().map(Output::into_tensor).collect();
    }
    let keep = if checkpoint == Checkpoint::On { Keep::Nothing } else { Keep::All };
    let (outputs, saved) = forward(&segment, keep)?;
    let tracked: Vec<Tensor> = segment.inputs().into_iter().filter(|input| input.track_op()).cloned().collect();
    let state = State { saved, outputs: vec![None; outputs.len()], inputs: Gradients::default() };
    let node = Arc::new(Node { segment, state: Mutex::new(state) });
    let mut token = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for pair in tracked.chunks(2) {
        token = pair[0].apply_op3(&pair[pair.len() - 1], &token, Tie(node.clone()))?;
    }
    let root = token.apply_op1(Root(node.clone()))?;
    let pick = |(i, output): (usize, Output<T>)| {
        root.apply_op1(Pick { node: node.clone(), i, value: Mutex::new(Some(output)) })
    };
    outputs.into_iter().enumerate().map(pick).collect()
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
pub enum Checkpoint {
    /// Kept.
    #[default]
    Off,
    /// Made again in backward from the segment's inputs: less memory, more time, the same gradients.
    On,
}

struct Node<T: Real, S: Segment<T>> {
    segment: S,
    state: Mutex<State<T, S>>,
}

struct State<T: Real, S: Segment<T>> {
    saved: Option<S::Saved>,
    outputs: Vec<Option<Tensor>>,
    inputs: Gradients,
}

impl<T: Real, S: Segment<T>> Node<T, S> {
    fn with<R>(&self, f: impl FnOnce(&mut State<T, S>) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Outputs' gradients to inputs'. A second backward over the same graph makes the forward pass again.
    fn backward(&self) -> Result<()> {
        let (saved, outputs) = self.with(|state| {
            let none = vec![None; state.outputs.len()];
            (state.saved.take(), std::mem::replace(&mut state.outputs, none))
        });
        let saved = match saved {
            Some(saved) => Some(saved),
            None => forward(&self.segment, Keep::All)?.1,
        };
        let Some(saved) = saved else {
            candle_core::bail!("{}: backward needs what forward did not keep", self.segment.name())
        };
        let mut grads = Gradients::default();
        let read = trace::bytes(outputs.iter().flatten());
        let op = trace::op(self.segment.name(), Pass::Backward);
        self.segment.backward(saved, outputs, &mut grads)?;
        drop(op.moves(|| read + trace::bytes(self.segment.inputs().into_iter().chain(grads.0.values()))));
        self.with(|state| state.inputs = grads);
        Ok(())
    }
}

/// The one value that ties and root pass on.
fn token() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(()))
}

/// What makes candle come to a node: the value does not matter.
fn knock(token: &Tensor) -> Result<Option<Tensor>> {
    token.zeros_like().map(Some)
}

struct Root<T: Real, S: Segment<T>>(Arc<Node<T, S>>);

impl<T: Real, S: Segment<T>> CustomOp1 for Root<T, S> {
    fn name(&self) -> &'static str {
        self.0.segment.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        self.0.backward()?;
        knock(token)
    }
}

struct Tie<T: Real, S: Segment<T>>(Arc<Node<T, S>>);

impl<T: Real, S: Segment<T>> CustomOp3 for Tie<T, S> {
    fn name(&self) -> &'static str {
        self.0.segment.name()
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        token: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (of_a, of_b) = self.0.with(|state| (state.inputs.0.remove(&a.id()), state.inputs.0.remove(&b.id())));
        Ok((of_a, of_b, knock(token)?))
    }
}

struct Pick<T: Real, S: Segment<T>> {
    node: Arc<Node<T, S>>,
    i: usize,
    value: Mutex<Option<Output<T>>>,
}

impl<T: Real, S: Segment<T>> CustomOp1 for Pick<T, S> {
    fn name(&self) -> &'static str {
        self.node.segment.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some(value) = self.value.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            candle_core::bail!("{}: an output is picked once", self.name())
        };
        Ok((T::to_cpu_storage_owned(value.values), value.shape))
    }

    fn bwd(&self, root: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        self.node.with(|state| state.outputs[self.i] = Some(dy));
        knock(root)
    }
}
