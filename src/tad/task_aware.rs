//! The task-aware module: the frozen path reads the shared tokens, the low-rank path each task's.

use super::{TaskFilter, TaskFilterKind};
use crate::layers::LowRankLinear;
use crate::ops::LowRankPath;
use crate::params::Weights;
use crate::task::TaskSet;
use candle_core::{Result, Tensor};

/// `y_t = W x + b + s B F(A z_t)` for each task t, F the task filter.
///
/// It shares W, b, A and B with the block's linear, of which it holds a handle.
///
/// Source: TA-Module, section 3.1 of the paper.
#[derive(Clone, Debug)]
pub struct TaskAwareLinear {
    linear: LowRankLinear,
    filter: TaskFilter,
}

impl TaskAwareLinear {
    /// Adds a filter to a block's linear, from `weights` at that linear's place; a linear without a low-rank path needs none.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(linear: &LowRankLinear, kind: TaskFilterKind, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let filter = match linear.low_rank() {
            Some(path) => TaskFilter::new(kind, tasks, path.rank()?, weights)?,
            None => TaskFilter::None,
        };
        Ok(Self { linear: linear.clone(), filter })
    }

    /// The low-rank path, where there is one.
    pub fn path(&self) -> Option<&LowRankPath> {
        self.linear.low_rank()
    }

    /// The task filter: `A z` `[T*b, N, r]` of maps of `size` to the same.
    ///
    /// # Errors
    /// Tokens of another number than `size` says, where there is a filter.
    pub fn filter(&self, u: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.filter.forward_tokens(u, size)
    }

    /// Adds each task's path to the shared frozen product.
    ///
    /// # Shapes
    /// `frozen` `[b, N, out]`; `tasks` z `[T*b, N, in]`, the tasks leading, maps of `size`; result `[T*b, N, out]`.
    ///
    /// # Errors
    /// Tensors whose shapes do not fit; maps of z that b does not divide.
    pub fn forward(&self, frozen: &Tensor, tasks: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let ((tb, n, _), (b, _, out)) = (tasks.dims3()?, frozen.dims3()?);
        let count = match tb.checked_div(b) {
            Some(count) if count * b == tb => count,
            _ => candle_core::bail!("task-aware linear: expected a multiple of {b} maps of the tasks, got {tb}"),
        };
        let shared = frozen.unsqueeze(0)?.broadcast_as((count, b, n, out))?;
        match self.linear.low_rank() {
            None => shared.reshape((tb, n, out)),
            Some(path) => {
                let filtered = self.filter.forward_tokens(&path.down(tasks)?, size)?;
                path.up(&filtered)?.reshape((count, b, n, out))?.add(&shared)?.reshape((tb, n, out))
            }
        }
    }
}
