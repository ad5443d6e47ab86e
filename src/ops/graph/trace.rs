//! What every step tells `tracing`: its kind, its pass, its definition, and the bytes that it reads and writes.
//!
//! The crate's page says how to listen. Where nobody does, a step costs one look at a flag.

use super::definition::Definition;
use candle_core::{Result, Tensor};
use tracing::field::Empty;
use tracing::span::EnteredSpan;

/// Which way a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Pass {
    /// From inputs to outputs.
    Forward,
    /// From the outputs' gradients to the inputs'.
    Backward,
    /// From gradients to weights; the optimizer's.
    #[cfg(feature = "train")]
    Update,
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            #[cfg(feature = "train")]
            Self::Update => "update",
        }
    }
}

/// A step under way, until it is dropped.
#[must_use = "a step ends where this is dropped"]
pub(in crate::ops) struct Op(EnteredSpan);

/// A step begins, by one of its definitions.
pub(in crate::ops) fn op(kind: &'static str, pass: Pass, definition: Definition) -> Op {
    let (pass, definition) = (pass.name(), definition.name());
    Op(tracing::trace_span!(target: "tadformer::op", "op", kind, pass, definition, bytes = Empty).entered())
}

impl Op {
    /// Tells what the step reads and writes; nothing is counted where nobody listens.
    pub(in crate::ops) fn moves(self, bytes: impl FnOnce() -> usize) -> Self {
        if !self.0.is_disabled() {
            self.0.record("bytes", bytes() as u64);
        }
        self
    }
}

/// Makes a pass of a step, and tells of it; `bytes` are those that it read and wrote.
pub(super) fn pass<R>(
    (kind, pass, definition): (&'static str, Pass, Definition),
    f: impl FnOnce() -> Result<R>,
    bytes: impl FnOnce(&R) -> usize,
) -> Result<R> {
    let op = op(kind, pass, definition);
    let made = f()?;
    drop(op.moves(|| bytes(&made)));
    Ok(made)
}

/// The bytes of the tensors' values.
pub(in crate::ops) fn bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> usize {
    tensors.into_iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
}
