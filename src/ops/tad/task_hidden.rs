//! The hidden values of the tasks' perceptrons, which are never kept: `4C` wide for each task.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::factor::{Factor, FactorKernel, FactorSums};
use super::rows::{TaskRows, of_width};
use super::shared::add_to_shared;
use super::task_path::TaskPath;
use super::up::{Up, UpKernel};
use crate::ops;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, Values, resize, values};
use crate::ops::gelu;
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
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
    only(apply(TaskHidden { pre: pre.clone(), up: Up::new(filtered, fc1), a: fc2.a.clone() })?)
}

#[derive(Clone)]
struct TaskHidden {
    pre: Tensor,
    up: Up,
    a: Factor,
}

struct Kernel<'a, T: Real> {
    pre: Values<'a, T>,
    up: UpKernel<'a, T>,
    a: FactorKernel<'a, T>,
    rows: TaskRows,
}

impl TaskHidden {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((images, n, _), (all, _, _)) = (self.pre.dims3()?, self.up.filtered.dims3()?);
        let rows = TaskRows { tasks: all / images, units: images * n, unit: 1 };
        Ok(Kernel { pre: values(&self.pre)?, up: self.up.kernel()?, a: self.a.kernel()?, rows })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// `GELU(pre + s B_t f)` of a block; `before` receives what GELU is taken of.
    fn hidden(&self, t: usize, block: &Range<usize>, before: Option<&mut [T]>, h: &mut Vec<T>) {
        let pre = &self.pre[of_width(block, self.a.n_in)];
        resize(h, pre.len());
        self.up.forward(t, &self.rows.of(t, block), h);
        gelu::in_place(Some(pre), before, h);
    }
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    a: FactorSums<T>,
    b: FactorSums<T>,
    before: Vec<T>,
    h: Vec<T>,
    dh: Vec<T>,
}

impl Step for TaskHidden {
    fn name(&self) -> &'static str {
        "task-hidden"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { pre: f(&self.pre)?, up: self.up.map(f)?, a: self.a.map(f)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let sizes @ [_, _, hidden] = shapes.sizes("pre", &self.pre)?;
        let tasks = self.up.check(shapes, sizes)?;
        self.a.check(shapes, "A", tasks, None, hidden).map(drop)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let tasks = self.up.filtered.dim(0)? / self.pre.dim(0)?;
        if tasks > 1 {
            // Task after task: with gradient checkpointing the hidden values of one alone are in memory.
            let task = |t| only(apply(Self { pre: self.pre.clone(), up: self.up.task(t, tasks)?, a: self.a.task(t) })?);
            return Ok(vec![Tensor::cat(&(0..tasks).map(task).collect::<Result<Vec<_>>>()?, 0)?]);
        }
        let hidden = ops::gelu(&add_to_shared(&self.pre, &self.up.composed()?)?)?;
        Ok(vec![self.a.forward(&hidden)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskHidden {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let (rows, rank) = (kernel.rows, kernel.a.out);
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
        let (all, n, _) = self.up.filtered.dims3()?;
        // SAFETY: the blocks cover all rows of all tasks, and `FactorKernel::forward` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (all, n, rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let (mut dpre, mut df) = (vec![T::zero(); kernel.pre.len()], Fresh::of(kernel.up.filtered.len()));
        let sums = {
            let (dpre, df) = (Parts::of(&mut dpre), df.parts());
            let start = || Sums {
                a: kernel.a.sums(),
                b: kernel.up.b.sums(),
                before: Vec::new(),
                h: Vec::new(),
                dh: Vec::new(),
            };
            let join = |sums: &mut Sums<T>, other: Sums<T>| {
                sums.a.add(&other.a);
                sums.b.add(&other.b);
            };
            kernel.rows.blocks().sum(start, |sums, block| kernel.backward(&du, block, &dpre, &df, sums), join)
        };
        grads.give_values(&self.pre, dpre)?;
        // SAFETY: the blocks cover all rows of all tasks, and `UpKernel::backward` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.up.filtered, df)?;
        sums.b.give(&self.up.b, grads)?;
        sums.a.give(&self.a, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of rows, task by task.
    fn backward(&self, du: &[T], block: Range<usize>, dpre: &Parts<T>, df: &Parts<MaybeUninit<T>>, sums: &mut Sums<T>) {
        let Sums { a, b, before, h, dh } = sums;
        let place = of_width(&block, self.a.n_in);
        // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
        let dpre = unsafe { dpre.at(place.start, place.len()) };
        for t in 0..self.rows.tasks {
            let rows = self.rows.of(t, &block);
            resize(before, dpre.len());
            self.hidden(t, &block, Some(before), h);
            resize(dh, h.len());
            self.a.backward(t, h, &du[of_width(&rows, self.a.out)], T::one(), dh, a);
            gelu::backward(before, dh);
            // SAFETY: `Blocks` puts each row into one block, so that no other thread works on these.
            unsafe { self.up.backward(t, &rows, dh, df, b) };
            simd::vectorised(|| simd::add(dpre, dh));
        }
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
