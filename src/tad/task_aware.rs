//! The task-aware module: the frozen path reads the shared tokens, the low-rank path each task's.

use super::{TaskFilter, TaskFilterKind};
use crate::layers::LowRankLinear;
use crate::ops;
use crate::ops::{LayerNorm, TaskCondition, TaskPath, WindowGrid};
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
    path: Option<FilteredPath>,
}

impl TaskAwareLinear {
    /// Adds a filter to a block's linear, from `weights` at that linear's place; a linear without a low-rank path needs none.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(linear: &LowRankLinear, kind: TaskFilterKind, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        Self::with_path(linear.low_rank().map(TaskPath::shared), kind, tasks, weights)
    }

    /// The same with these paths, which may be each task's own.
    ///
    /// # Errors
    /// As [`TaskAwareLinear::new`].
    pub fn with_path(path: Option<TaskPath>, kind: TaskFilterKind, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        let filtered = |path: TaskPath| {
            let filter = TaskFilter::new(kind, tasks, path.rank()?, weights)?;
            Ok::<_, candle_core::Error>(FilteredPath { path, filter })
        };
        Ok(Self { path: path.map(filtered).transpose()? })
    }

    /// The tasks' low-rank paths, where there are any.
    pub fn path(&self) -> Option<&TaskPath> {
        self.path.as_ref().map(|filtered| &filtered.path)
    }

    /// The same with what filters them, step by step.
    pub(super) fn filtered_path(&self) -> Option<&FilteredPath> {
        self.path.as_ref()
    }

    /// The filter that each map `[T*b, N, r]` gets, `[T*b, k*k, r]`; `None` without a filter.
    ///
    /// # Errors
    /// As [`TaskFilter::taps`].
    pub fn taps(&self, u: &Tensor) -> Result<Option<Tensor>> {
        self.path.as_ref().map_or(Ok(None), |path| path.filter.taps(u))
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
                let u = path.path.down(tasks)?;
                watch(&u)?;
                ops::add_to_shared(frozen, &path.path.up(&path.filter(&u, size)?)?)
            }
        }
    }
}

/// The tasks' paths beside one linear and the filter between A and B, as the fused steps of a block take them: each `down` gives
/// `A z_t`, [`FilteredPath::filter`] `F` of that, and what follows it adds `s B_t` of it to what tasks share.
#[derive(Clone, Debug)]
pub(super) struct FilteredPath {
    path: TaskPath,
    filter: TaskFilter,
}

impl FilteredPath {
    /// Of attended patches that the tasks share.
    pub(super) fn down_shared(&self, x: &Tensor, tasks: usize) -> Result<Tensor> {
        self.path.a.forward_shared(x, tasks)
    }

    /// Of what `norm` makes of each task's conditioned patches.
    pub(super) fn down_conditioned(&self, condition: &TaskCondition, norm: &LayerNorm) -> Result<Tensor> {
        ops::conditioned_down(condition, norm, &self.path.a)
    }

    /// Of what `norm` makes of each task's own tokens.
    pub(super) fn down_normed(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        ops::norm_down(x, norm, &self.path.a)
    }

    /// Of the hidden values, `GELU(pre + s1 B1_t u_t)` with u from the path `before` this one.
    pub(super) fn down_hidden(&self, pre: &Tensor, u: &Tensor, before: &Self) -> Result<Tensor> {
        ops::task_hidden(pre, u, &before.path, &self.path)
    }

    /// What the filter makes of them, map by map of `size`.
    pub(super) fn filter(&self, u: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.filter.forward_tokens(u, size)
    }

    /// `x + k (frozen + s B_t u_t)`, frozen and u in windows of `grid`.
    pub(super) fn project(
        &self,
        x: &Tensor,
        frozen: &Tensor,
        u: &Tensor,
        grid: &WindowGrid,
        drop_path: Option<Vec<f64>>,
    ) -> Result<Tensor> {
        ops::task_projection(x, frozen, u, &self.path, grid, drop_path)
    }

    /// `x_t + k (frozen + s B_t u_t)`.
    pub(super) fn update(
        &self,
        x: &Tensor,
        frozen: &Tensor,
        u: &Tensor,
        drop_path: Option<Vec<f64>>,
    ) -> Result<Tensor> {
        ops::task_update(x, frozen, u, &self.path, drop_path)
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
