//! A step of many tensors in and out as one node of candle's graph.
//!
//! Candle sees a root of one value. The step's inputs hang from it by ties, two at each, its outputs are picks from it; values and
//! gradients travel beside the graph in a [`Node`] that all of them share.

use super::gradients::InputGradients;
use super::output::Output;
use super::step::Made;
use super::token::{self, OneDevice, Token, knock, on_every_device};
use candle_core::{CustomOp1, CustomOp3, Result, Shape, Storage, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// The outputs of a step as tensors of the graph that its inputs belong to.
pub(super) fn graph(made: Box<dyn Made>, outputs: Vec<Output>) -> Result<Vec<Tensor>> {
    let tracked: Vec<Tensor> = made.inputs().iter().filter(|input| input.track_op()).cloned().collect();
    let Some(first) = tracked.first() else {
        return Ok(outputs.into_iter().map(Output::into_tensor).collect());
    };
    let mut token = token::of(first.device())?;
    let state = State { outputs: vec![None; outputs.len()], inputs: InputGradients::default(), made };
    let node = Node { name: state.made.name(), state: Arc::new(Mutex::new(state)) };
    // An op of candle's has three arguments at most, and the token takes the place of one; of an odd number, the last stands twice.
    for pair in tracked.chunks(2) {
        token = pair[0].apply_op3(&pair[pair.len() - 1], &token, Tie(node.clone()))?;
    }
    let root = token.apply_op1(Root(node.clone()))?;
    let pick = |(i, output): (usize, Output)| {
        let value = Mutex::new(Some(output.into_storage()?));
        root.apply_op1(Pick { node: node.clone(), i, value })
    };
    outputs.into_iter().enumerate().map(pick).collect()
}

#[derive(Clone)]
struct Node {
    name: &'static str,
    state: Arc<Mutex<State>>,
}

struct State {
    made: Box<dyn Made>,
    outputs: Vec<Option<Tensor>>,
    inputs: InputGradients,
}

impl Node {
    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Outputs' gradients to inputs'.
    fn backward(&self) -> Result<()> {
        self.with(|state| {
            let none = vec![None; state.outputs.len()];
            state.inputs = state.made.backward(std::mem::replace(&mut state.outputs, none))?;
            Ok(())
        })
    }
}

struct Root(Node);

impl CustomOp1 for Root {
    fn name(&self) -> &'static str {
        self.0.name
    }

    on_every_device!(|_this, token: _layout| token.beside());

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

    on_every_device!(|_this, _a: _la, _b: _lb, token: _layout| token.beside());

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        token: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // What stands twice has its gradient by the first.
        let (of_a, of_b) = self.0.with(|state| (state.inputs.take(a.id()), state.inputs.take(b.id())));
        Ok((of_a, of_b, knock(token)?))
    }
}

struct Pick {
    node: Node,
    i: usize,
    value: Mutex<Option<(Storage, Shape)>>,
}

impl Pick {
    fn take<S: OneDevice>(&self) -> Result<(S, Shape)> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        match value.and_then(|(storage, shape)| Some((S::of(storage)?, shape))) {
            Some(value) => Ok(value),
            None => candle_core::bail!("{}: an output is picked once, on its step's device", self.node.name),
        }
    }
}

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        self.node.name
    }

    on_every_device!(|this, _root: _layout| this.take());

    fn bwd(&self, root: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        self.node.with(|state| state.outputs[self.i] = Some(dy));
        knock(root)
    }
}
