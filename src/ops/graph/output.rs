//! One of a step's outputs, before it belongs to a graph.

use crate::ops::cpu::Real;
use candle_core::op::BackpropOp;
use candle_core::{Result, Shape, Storage, Tensor, Var};

/// Values that a kernel made, or a tensor that candle's primitives made without a graph.
pub(in crate::ops) enum Output {
    Values(Storage, Shape),
    Tensor(Tensor),
}

impl Output {
    /// What a kernel on the CPU made.
    pub(in crate::ops) fn new<T: Real>(values: Vec<T>, shape: impl Into<Shape>) -> Self {
        Self::Values(Storage::Cpu(T::to_cpu_storage_owned(values)), shape.into())
    }

    /// As a tensor of no graph.
    pub(super) fn into_tensor(self) -> Tensor {
        match self {
            Self::Values(storage, shape) => Tensor::from_storage(storage, shape, BackpropOp::none(), false),
            Self::Tensor(tensor) => tensor,
        }
    }

    /// As a tensor that a tape's later steps go back to.
    pub(super) fn into_leaf(self) -> Result<Tensor> {
        match self {
            Self::Values(storage, shape) => Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), true)),
            Self::Tensor(tensor) => Var::from_tensor(&tensor).map(Var::into_inner),
        }
    }

    /// As candle stores it; candle gives no tensor's storage away, so a tensor's is copied.
    pub(super) fn into_storage(self) -> Result<(Storage, Shape)> {
        match self {
            Self::Values(storage, shape) => Ok((storage, shape)),
            Self::Tensor(tensor) => {
                let tensor = tensor.force_contiguous()?;
                let (storage, layout) = tensor.storage_and_layout();
                Ok((storage.try_clone(layout)?, tensor.shape().clone()))
            }
        }
    }

    /// The bytes of its values.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Values(storage, shape) => shape.elem_count() * storage.dtype().size_in_bytes(),
            Self::Tensor(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
        }
    }
}

/// The output of a step that has one.
pub(in crate::ops) fn only(mut outputs: Vec<Tensor>) -> Result<Tensor> {
    match outputs.pop() {
        Some(output) if outputs.is_empty() => Ok(output),
        _ => candle_core::bail!("expected a step of one output, got {}", outputs.len() + 1),
    }
}
