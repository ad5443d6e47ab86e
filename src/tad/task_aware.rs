//! The task-aware module: the frozen path reads the shared tokens, the low-rank path each task's.

use super::{TaskFilter, TaskFilterKind};
use crate::layers::LowRankLinear;
use crate::ops;
use crate::ops::TaskPath;
use crate::params::Weights;
use crate::task::TaskSet;
use candle_core::{Result, Tensor};

/// The task-aware module: a frozen product of the shared tokens, and beside it a low-rank path of each task's.
///
/// `y_t = W x + b + s B_t F(A_t z_t)` for each task t, F the task filter.
///
/// W x + b is the shared frozen product of the block's linear; A and B are the linear's own, which the tasks share, or each task's.
///
/// Source: TA-Module, section 3.1 of the paper.
#[derive(Clone, Debug)]
pub struct TaskAwareLinear {
    path: Option<TaskPath>,
    filter: TaskFilter,
}

impl TaskAwareLinear {
    /// Adds a filter to a block's linear, from `weights` at that linear's place; a linear without a low-rank path needs none.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(linear: &LowRankLinear, kind: TaskFilterKind, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        Self::with_path(linear.low_rank().map(TaskPath::from), kind, tasks, weights)
    }

    /// The same with these paths, which may be each task's own.
    ///
    /// # Errors
    /// As [`TaskAwareLinear::new`].
    pub fn with_path(path: Option<TaskPath>, kind: TaskFilterKind, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let filter = match &path {
            Some(path) => TaskFilter::new(kind, tasks, path.rank()?, weights)?,
            None => TaskFilter::None,
        };
        Ok(Self { path, filter })
    }

    /// The tasks' low-rank paths, where there are any.
    pub fn path(&self) -> Option<&TaskPath> {
        self.path.as_ref()
    }

    /// Filters `A z`: `[T*b, N, r]`, maps of `size`, the tasks leading, to the same.
    ///
    /// # Errors
    /// Tokens of another number than `size` says, where there is a filter.
    pub fn filter(&self, u: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.filter.forward_tokens(u, size)
    }

    /// The filter that each map `[T*b, N, r]` gets, `[T*b, k*k, r]`; `None` without a filter.
    ///
    /// # Errors
    /// As [`TaskFilter::taps`].
    pub fn taps(&self, u: &Tensor) -> Result<Option<Tensor>> {
        self.filter.taps(u)
    }

    /// Adds each task's path to the shared frozen product.
    ///
    /// # Shapes
    /// `frozen` `[b, N, out]`; `tasks` z `[T*b, N, in]`, the tasks leading, maps of `size`; result `[T*b, N, out]`.
    ///
    /// # Errors
    /// Tensors whose shapes do not fit; maps of z that b does not divide.
    pub fn forward(&self, frozen: &Tensor, tasks: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.forward_watched(frozen, tasks, size, |_| Ok(()))
    }

    /// [`TaskAwareLinear::forward`], with what its filter reads.
    pub(super) fn forward_watched(
        &self,
        frozen: &Tensor,
        tasks: &Tensor,
        size: (usize, usize),
        watch: impl FnOnce(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let (all, b) = (tasks.dim(0)?, frozen.dim(0)?);
        let count = match all.checked_div(b) {
            Some(count) if count * b == all => count,
            _ => candle_core::bail!("task-aware linear: expected a multiple of {b} maps of the tasks, got {all}"),
        };
        match &self.path {
            None => ops::for_each_task(frozen, count),
            Some(path) => {
                let u = path.down(tasks)?;
                watch(&u)?;
                ops::add_to_shared(frozen, &path.up(&self.filter(&u, size)?)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Factor;
    use crate::ops::finite_difference::{close, normal};
    use crate::params::{Ledger, Release, random_source};
    use candle_core::{DType, Device};

    #[test]
    fn each_task_goes_by_its_own_path_where_it_has_one() -> crate::Result<()> {
        let (ledger, source) =
            (Ledger::seeded(0, DType::F64, &Device::Cpu), random_source(0, DType::F64, &Device::Cpu));
        let (weights, tasks) = (Weights::new(source, ledger, Release::none()), "sal=1,depth=1".parse()?);
        let factor = |seed, dims: &[usize]| -> Result<Factor> {
            Ok(Factor::PerTask(vec![normal(seed, dims)?, normal(seed + 1, dims)?]))
        };
        let own = TaskPath { a: factor(1, &[2, 4])?, b: factor(3, &[3, 2])?, scale: 0.5 };
        let aware = |path| TaskAwareLinear::with_path(Some(path), TaskFilterKind::None, &tasks, &weights);
        let (frozen, z) = (normal(5, &[1, 6, 3])?, normal(6, &[2, 6, 4])?);
        let got = aware(own.clone())?.forward(&frozen, &z, (2, 3))?;
        let (Factor::PerTask(a), Factor::PerTask(b)) = (own.a, own.b) else { panic!("paths of the tasks' own") };
        for (t, (a, b)) in a.into_iter().zip(b).enumerate() {
            let one = TaskPath { a: a.into(), b: b.into(), scale: 0.5 };
            close(&got.narrow(0, t, 1)?, &aware(one)?.forward(&frozen, &z.narrow(0, t, 1)?, (2, 3))?, 1e-12)?;
        }
        Ok(())
    }
}
