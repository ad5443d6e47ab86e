//! The hidden values of the tasks' perceptrons, which are never kept: `4C` wide for each task.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::factor::{Factor, FactorKernel, FactorSums};
use super::rows::of_width;
use super::task_path::TaskPath;
use super::task_sum::{SumKernel, TaskSum};
use crate::ops;
use crate::ops::cpu::{Fresh, Real, resize, values};
use crate::ops::gelu;
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `u_t = A2_t GELU(pre + s1 B1_t f_t)` for each task t: what the second layer's path reads of the first layer's values.
///
/// # Shapes
/// `pre` `[B, N, hidden]`, the frozen product that tasks share; `filtered` f `[T*B, N, r1]`, the tasks leading; result
/// `[T*B, N, r2]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn task_hidden(pre: &Tensor, filtered: &Tensor, fc1: &TaskPath, fc2: &TaskPath) -> Result<Tensor> {
    only(apply(TaskHidden { sum: TaskSum::new(pre, filtered, fc1), a: fc2.a.clone() })?)
}

#[derive(Clone)]
struct TaskHidden {
    /// Of `pre` and of the first layer's path.
    sum: TaskSum,
    a: Factor,
}

struct Kernel<'a, T: Real> {
    sum: SumKernel<'a, T>,
    a: FactorKernel<'a, T>,
}

impl TaskHidden {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        Ok(Kernel { sum: self.sum.kernel(1)?, a: self.a.kernel()? })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// `GELU(pre + s B_t f)` of a block; `before` receives what GELU is taken of.
    fn hidden(&self, t: usize, block: &Range<usize>, before: Option<&mut [T]>, h: &mut Vec<T>) {
        let pre = self.sum.shared(block);
        resize(h, pre.len());
        self.sum.path(t, block, h);
        gelu::in_place(Some(pre), before, h);
    }
}

/// Sums of A's gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    a: FactorSums<T>,
    before: Vec<T>,
    h: Vec<T>,
}

impl Step for TaskHidden {
    fn name(&self) -> &'static str {
        "task-hidden"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { sum: self.sum.map(f)?, a: self.a.map(f)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let sizes @ [_, _, hidden] = shapes.sizes("pre", &self.sum.shared)?;
        let tasks = self.sum.check(shapes, "pre", sizes)?;
        self.a.check(shapes, "A", tasks, None, hidden).map(drop)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let tasks = self.sum.tasks()?;
        if tasks > 1 {
            // Task after task: with gradient checkpointing the hidden values of one alone are in memory.
            let task = |t| only(apply(Self { sum: self.sum.task(t, tasks)?, a: self.a.task(t) })?);
            return Ok(vec![Tensor::cat(&(0..tasks).map(task).collect::<Result<Vec<_>>>()?, 0)?]);
        }
        Ok(vec![self.a.forward(&ops::gelu(&self.sum.composed()?)?)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskHidden {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let (rows, rank) = (kernel.sum.rows, kernel.a.out);
        let mut u = Fresh::of(rows.len() * rank);
        let out = u.parts();
        rows.blocks().for_each(Vec::new, |h, block| {
            for t in 0..rows.tasks {
                kernel.hidden(t, &block, None, h);
                let place = of_width(&rows.of(t, &block), rank);
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                let out = unsafe { out.at(place.start, place.len()) };
                kernel.a.forward(t, h, T::one(), out);
            }
        });
        let (all, n, _) = self.sum.filtered.dims3()?;
        // SAFETY: the blocks cover all rows of all tasks, and `FactorKernel::forward` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (all, n, rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let start = || Sums { a: kernel.a.sums(), before: Vec::new(), h: Vec::new() };
        let of_task = |sums: &mut Sums<T>, t: usize, block: &Range<usize>, dsum: &mut [T]| {
            let Sums { a, before, h } = sums;
            resize(before, dsum.len());
            kernel.hidden(t, block, Some(before), h);
            let du = &du[of_width(&kernel.sum.rows.of(t, block), kernel.a.out)];
            kernel.a.backward(t, h, du, T::one(), dsum, a);
            gelu::backward(before, dsum);
        };
        let (gradients, sums) = kernel.sum.backward(start, of_task, |sums, other| sums.a.add(&other.a));
        gradients.give(&self.sum, grads)?;
        sums.a.give(&self.a, grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients() -> Result<()> {
        let (pre, filtered) = (normal(1, &[2, 5, 6])?, normal(2, &[4, 5, 3])?);
        let (b, a) = ([normal(3, &[6, 3])?, normal(4, &[6, 3])?], [normal(5, &[2, 6])?, normal(6, &[2, 6])?]);
        for own in 1..=2 {
            let inputs = [&[pre.clone(), filtered.clone()], &b[..own], &a[..own]].concat();
            let step = |v: &[Tensor]| {
                let (b, a) = v[2..].split_at(own);
                let path = |of: &[Tensor]| TaskPath { a: Factor::of(of), b: Factor::of(of), scale: 0.5 };
                task_hidden(&v[0], &v[1], &path(b), &path(a))
            };
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(&inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.iter().collect::<Vec<_>>(), step)?;
        }
        Ok(())
    }
}
