//! What a step is: a stretch of the model that knows its tensors and what is made of them.
//!
//! Candle's own ops take three tensors, give one, keep every value between them until the end, and add each gradient to zeros first. A
//! step takes any number of tensors, gives any number, and keeps what its backward needs and no more. Its composed definition runs on
//! every device and is the oracle of the tests; where a measurement shows that it pays, a [`CpuKernel`] stands in for it. `run.rs`
//! decides which of them runs; `node.rs` and `tape.rs` are the two ways in which candle sees the step.

use super::gradients::InputGradients;
use super::output::Output;
use crate::ops::cpu::Real;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// What is given each tensor of a step, and gives one back.
pub(in crate::ops) type OnTensor<'a> = dyn FnMut(&Tensor) -> Result<Tensor> + 'a;

/// A stretch of the model: its tensors, what has to hold of them, and what is made of them.
pub(in crate::ops) trait Step: Clone + Send + Sync + 'static {
    /// As it appears in errors and traces.
    fn name(&self) -> &'static str;

    /// The same step with what `f` gives for each tensor that the outputs may depend on by way of a variable; the first one's device
    /// and float type are the step's. A tensor that it leaves out and that trains is an error in `run.rs`.
    fn map(&self, f: &mut OnTensor) -> Result<Self>;

    /// Whether all tensors are what every definition takes for granted: kernels write into memory that nothing has filled.
    fn check(&self, shapes: Shapes) -> Result<()>;

    /// The outputs by candle's primitives.
    fn composed(&self) -> Result<Vec<Tensor>>;

    /// Every tensor that the outputs may depend on by way of a variable.
    fn inputs(&self) -> Result<Vec<Tensor>> {
        let mut inputs = Vec::new();
        self.map(&mut |tensor| {
            inputs.push(tensor.clone());
            Ok(tensor.clone())
        })?;
        Ok(inputs)
    }
}

/// A step's kernels on the CPU, in one float type.
pub(in crate::ops) trait CpuKernel<T: Real>: Step {
    /// What backward needs beside the inputs.
    type Saved: Send;

    /// The outputs, and what backward needs; where `keep` says so, the latter is left out if it takes memory.
    fn forward(&self, keep: Keep) -> Result<Passed<Self::Saved>>;

    /// Gives `grads` the gradient of every tracked input, from the outputs' (`None` for an output that nothing reads).
    fn backward(&self, saved: Self::Saved, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()>;
}

/// A step's outputs, and what backward needs.
pub(in crate::ops) type Passed<S> = (Vec<Output>, Option<S>);

/// Whether a forward pass keeps what backward needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Keep {
    /// It does.
    All,
    /// It does not: nothing trains, or backward will make the pass again.
    Nothing,
}

/// A forward pass that was made, its backward still to come.
pub(in crate::ops) trait Made: Send {
    /// As it appears in errors.
    fn name(&self) -> &'static str;

    /// The tensors that backward gives gradients of.
    fn inputs(&self) -> &[Tensor];

    /// Outputs' gradients to inputs'.
    fn backward(&mut self, outputs: Vec<Option<Tensor>>) -> Result<InputGradients>;
}
