//! What every fused step tells `tracing`: its kind, its pass, and the bytes that it reads and writes.
//!
//! The crate's page says how to listen. Where nobody does, a step costs one look at a flag.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
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

/// A step begins.
pub(in crate::ops) fn op(kind: &'static str, pass: Pass) -> Op {
    Op(tracing::trace_span!(target: "tadformer::op", "op", kind, pass = pass.name(), bytes = Empty).entered())
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

/// The bytes of the tensors' values.
pub(in crate::ops) fn bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> usize {
    tensors.into_iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
}

/// An op of candle's graph whose passes tell what they do: `x.apply_op1(Traced(Gelu))`.
pub(in crate::ops) struct Traced<C>(pub(in crate::ops) C);

fn of_forward(layouts: &[&Layout], made: &(CpuStorage, Shape)) -> usize {
    let values: usize = layouts.iter().map(|layout| layout.shape().elem_count()).sum();
    (values + made.1.elem_count()) * made.0.dtype().size_in_bytes()
}

impl<C: CustomOp1> CustomOp1 for Traced<C> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let op = op(self.name(), Pass::Forward);
        let made = self.0.cpu_fwd(x, lx)?;
        let _ended = op.moves(|| of_forward(&[lx], &made));
        Ok(made)
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let op = op(self.name(), Pass::Backward);
        let dx = self.0.bwd(x, y, dy)?;
        let _ended = op.moves(|| bytes([x, dy].into_iter().chain(&dx)));
        Ok(dx)
    }
}

impl<C: CustomOp2> CustomOp2 for Traced<C> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let op = op(self.name(), Pass::Forward);
        let made = self.0.cpu_fwd(a, la, b, lb)?;
        let _ended = op.moves(|| of_forward(&[la, lb], &made));
        Ok(made)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let op = op(self.name(), Pass::Backward);
        let (da, db) = self.0.bwd(a, b, y, dy)?;
        let _ended = op.moves(|| bytes([a, b, dy].into_iter().chain(&da).chain(&db)));
        Ok((da, db))
    }
}

impl<C: CustomOp3> CustomOp3 for Traced<C> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let op = op(self.name(), Pass::Forward);
        let made = self.0.cpu_fwd(a, la, b, lb, c, lc)?;
        let _ended = op.moves(|| of_forward(&[la, lb, lc], &made));
        Ok(made)
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let op = op(self.name(), Pass::Backward);
        let (da, db, dc) = self.0.bwd(a, b, c, y, dy)?;
        let _ended = op.moves(|| bytes([a, b, c, dy].into_iter().chain(&da).chain(&db).chain(&dc)));
        Ok((da, db, dc))
    }
}
