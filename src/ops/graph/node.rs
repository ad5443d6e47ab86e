//! A step of many tensors in and out as one node of candle's graph.
//!
//! Candle sees a root of one value. The step's inputs hang from it by ties of three, its outputs are picks from it; values and
//! gradients travel beside the graph in a [`Node`] that all of them share.

use super::step::{Gradients, Step};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// The outputs of `step` as tensors of the graph that its inputs belong to.
pub(in crate::ops) fn graph(step: Box<dyn Step>, outputs: Vec<(CpuStorage, Shape)>) -> Result<Vec<Tensor>> {
    let tracked: Vec<Tensor> = step.inputs().into_iter().filter(|input| input.track_op()).cloned().collect();
    let name = step.name();
    let state = State { step, outputs: vec![None; outputs.len()], inputs: Gradients::default() };
    let node = Node { name, state: Arc::new(Mutex::new(state)) };
    let mut token = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for pair in tracked.chunks(2) {
        token = pair[0].apply_op3(&pair[pair.len() - 1], &token, Tie(node.clone()))?;
    }
    let root = token.apply_op1(Root(node.clone()))?;
    let pick = |(i, output)| root.apply_op1(Pick { node: node.clone(), i, value: Mutex::new(Some(output)) });
    outputs.into_iter().enumerate().map(pick).collect()
}

#[derive(Clone)]
struct Node {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

struct State {
    step: Box<dyn Step>,
    outputs: Vec<Option<Tensor>>,
    inputs: Gradients,
}

impl Node {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Outputs' gradients to inputs'.
    fn backward(&self) -> Result<()> {
        self.with(|state| {
            let none = vec![None; state.outputs.len()];
            state.inputs = state.step.backward(std::mem::replace(&mut state.outputs, none))?;
            Ok(())
        })
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

struct Root(Node);

impl CustomOp1 for Root {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(token())
    }

    fn bwd(&self, token: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        self.0.backward()?;
        knock(token)
    }
}

struct Tie(Node);

impl CustomOp3 for Tie {
    fn name(&self) -> &'static str {
        self.0.name
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
        let (of_a, of_b) = self.0.with(|state| (state.inputs.take(a.id()), state.inputs.take(b.id())));
        Ok((of_a, of_b, knock(token)?))
    }
}

struct Pick {
    node: Node,
    i: usize,
    value: Mutex<Option<(CpuStorage, Shape)>>,
}

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        self.node.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some(value) = self.value.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            candle_core::bail!("{}: an output is picked once", self.name())
        };
        Ok(value)
    }

    fn bwd(&self, root: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        self.node.with(|state| state.outputs[self.i] = Some(dy));
        knock(root)
    }
}
