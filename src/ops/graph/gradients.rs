//! The gradients that a backward pass gives.

use crate::ops::cpu::Real;
use candle_core::{Device, Result, Tensor, TensorId};
use std::collections::HashMap;

/// InputGradients by the tensor that they are of.
#[derive(Default)]
pub(in crate::ops) struct InputGradients(HashMap<TensorId, Tensor>);

impl InputGradients {
    /// Gives a tensor that leads to a variable its gradient, added to what it has; others want none.
    pub(in crate::ops) fn give(&mut self, input: &Tensor, gradient: Tensor) -> Result<()> {
        if gradient.dims() != input.dims() {
            candle_core::bail!("a gradient of {:?} for an input of {:?}", gradient.dims(), input.dims())
        }
        if !input.track_op() {
            return Ok(());
        }
        self.give_id(input.id(), gradient)
    }

    /// [`InputGradients::give`] from values; in the input's own float type, which a stored weight's may be.
    pub(in crate::ops) fn give_values<T: Real>(&mut self, input: &Tensor, values: Vec<T>) -> Result<()> {
        if !input.track_op() {
            return Ok(());
        }
        self.give(input, Tensor::from_vec(values, input.dims(), &Device::Cpu)?.to_dtype(input.dtype())?)
    }

    /// [`InputGradients::give`] where only the tensor's name in the graph is at hand.
    pub(super) fn give_id(&mut self, input: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&input) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        self.0.insert(input, sum);
        Ok(())
    }

    /// Hands a tensor's gradient over, where it has one.
    pub(super) fn take(&mut self, input: TensorId) -> Option<Tensor> {
        self.0.remove(&input)
    }

    /// All of them.
    pub(super) fn values(&self) -> impl Iterator<Item = &Tensor> {
        self.0.values()
    }

    /// Whether each is of one of these tensors: one of another would be lost, as nobody takes it.
    pub(super) fn are_of(&self, inputs: &[Tensor]) -> bool {
        self.0.keys().all(|id| inputs.iter().any(|input| input.id() == *id))
    }
}
