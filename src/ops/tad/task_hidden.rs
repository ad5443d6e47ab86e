//! The hidden values of the tasks' perceptrons, which are never kept: `4C` wide for each task.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::shared::add_to_shared;
use crate::ops;
use crate::ops::cpu::blocks::Blocks;
use crate::ops::cpu::both_ways::BothWays;
use crate::ops::cpu::buffers::resize;
use crate::ops::cpu::float::Real;
use crate::ops::cpu::parts::{Fresh, Parts};
use crate::ops::cpu::product::{Matrix, add_product, product};
use crate::ops::cpu::simd;
use crate::ops::cpu::slices::{Values, values};
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::low_rank::{LowRankPath, scaled_up};
use crate::ops::shapes::Shapes;
use crate::ops::{gelu, linear};
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `u_t = A2 GELU(pre + s1 B1 f_t)` for each task t: what the second layer's path reads of the first layer's values.
///
/// # Shapes
/// `pre` `[B, N, hidden]`, the frozen product that tasks share; `filtered` f `[T*B, N, r1]`, the tasks leading; result
/// `[T*B, N, r2]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn task_hidden(pre: &Tensor, filtered: &Tensor, fc1: &LowRankPath, fc2: &LowRankPath) -> Result<Tensor> {
    let (pre, filtered, b, a) = (pre.clone(), filtered.clone(), fc1.b.clone(), fc2.a.clone());
    let step = TaskHidden { pre, filtered, b, scale: fc1.scale, a };
    only(apply(step)?)
}

#[derive(Clone)]
struct TaskHidden {
    pre: Tensor,
    filtered: Tensor,
    b: Tensor,
    scale: f64,
    a: Tensor,
}

struct Kernel<'a, T: Real> {
    pre: Values<'a, T>,
    filtered: Values<'a, T>,
    b: BothWays<'a, T>,
    a: BothWays<'a, T>,
    scale: T,
    blocks: Blocks,
    /// Rows that tasks share.
    rows: usize,
    tasks: usize,
    hidden: usize,
    ranks: [usize; 2],
}

impl TaskHidden {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((hidden, r1), (r2, _)) = (self.b.dims2()?, self.a.dims2()?);
        let rows = self.pre.elem_count() / hidden;
        Ok(Kernel {
            pre: values(&self.pre)?,
            filtered: values(&self.filtered)?,
            b: BothWays::lend(&self.b)?,
            a: BothWays::lend(&self.a)?,
            scale: T::of(self.scale),
            blocks: Blocks::of(rows, 1),
            rows,
            tasks: self.filtered.elem_count() / r1 / rows.max(1),
            hidden,
            ranks: [r1, r2],
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// A block's rows of task `t`, in arrays of `width` values a row.
    fn of_task(&self, t: usize, block: &Range<usize>, width: usize) -> Range<usize> {
        (t * self.rows + block.start) * width..(t * self.rows + block.end) * width
    }

    /// `GELU(pre + s B f)` of a block and task; `before` receives what GELU is taken of.
    fn hidden(&self, block: &Range<usize>, f: &[T], before: Option<&mut [T]>, h: &mut Vec<T>) {
        let (hidden, r1) = (self.hidden, self.ranks[0]);
        resize(h, block.len() * hidden);
        product(h, hidden, Matrix::rows(f, r1), self.b.t(), self.scale);
        gelu::in_place(Some(&self.pre[block.start * hidden..block.end * hidden]), before, h);
    }
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    a: Vec<T>,
    b: Vec<T>,
    before: Vec<T>,
    h: Vec<T>,
    dh: Vec<T>,
}

impl Step for TaskHidden {
    fn name(&self) -> &'static str {
        "task-hidden"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { pre: f(&self.pre)?, filtered: f(&self.filtered)?, b: f(&self.b)?, a: f(&self.a)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, n, hidden], [r2, _]) = (shapes.sizes("pre", &self.pre)?, shapes.sizes("A", &self.a)?);
        let [all, _, r1] = shapes.sizes("filtered", &self.filtered)?;
        shapes.times("images of all tasks", all, images)?;
        shapes.expect("filtered", &self.filtered, &[all, n, r1])?;
        shapes.expect("B", &self.b, &[hidden, r1])?;
        shapes.expect("A", &self.a, &[r2, hidden])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let images = self.pre.dim(0)?;
        if self.filtered.dim(0)? > images {
            // Task after task: with gradient checkpointing the hidden values of one alone are in memory.
            let filtered = self.filtered.chunk(self.filtered.dim(0)? / images, 0)?;
            let task = |filtered| only(apply(Self { filtered, ..self.clone() })?);
            return Ok(vec![Tensor::cat(&filtered.into_iter().map(task).collect::<Result<Vec<_>>>()?, 0)?]);
        }
        let update = scaled_up(&self.filtered, &self.b, self.scale)?;
        let hidden = ops::gelu(&add_to_shared(&self.pre, &update)?)?;
        Ok(vec![linear(&hidden, &self.a, None)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskHidden {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let (hidden, [r1, r2]) = (kernel.hidden, kernel.ranks);
        let mut u = Fresh::of(kernel.tasks * kernel.rows * r2);
        let out = u.parts();
        kernel.blocks.for_each(Vec::new, |h, block| {
            for t in 0..kernel.tasks {
                kernel.hidden(&block, &kernel.filtered[kernel.of_task(t, &block, r1)], None, h);
                let place = kernel.of_task(t, &block, r2);
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                let out = unsafe { out.at(place.start, place.len()) };
                product(out, r2, Matrix::rows(h, hidden), kernel.a.t(), T::one());
            }
        });
        let (tb, n, _) = self.filtered.dims3()?;
        // SAFETY: the blocks cover all rows of all tasks, and `product` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (tb, n, r2))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let (mut dpre, mut df) = (vec![T::zero(); kernel.pre.len()], Fresh::of(kernel.filtered.len()));
        let sums = {
            let (dpre, df) = (Parts::of(&mut dpre), df.parts());
            let start = || Sums {
                a: vec![T::zero(); kernel.a.len()],
                b: vec![T::zero(); kernel.b.len()],
                before: Vec::new(),
                h: Vec::new(),
                dh: Vec::new(),
            };
            let join = |sums: &mut Sums<T>, other: Sums<T>| {
                simd::add(&mut sums.a, &other.a);
                simd::add(&mut sums.b, &other.b);
            };
            kernel.blocks.sum(start, |sums, block| kernel.backward(&du, block, &dpre, &df, sums), join)
        };
        grads.give_values(&self.pre, dpre)?;
        // SAFETY: the blocks cover all rows of all tasks, and `product` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.filtered, df)?;
        grads.give_values(&self.b, sums.b)?;
        grads.give_values(&self.a, sums.a)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of rows, task by task.
    fn backward(&self, du: &[T], block: Range<usize>, dpre: &Parts<T>, df: &Parts<MaybeUninit<T>>, sums: &mut Sums<T>) {
        let (hidden, [r1, r2]) = (self.hidden, self.ranks);
        let Sums { a, b, before, h, dh } = sums;
        // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
        let dpre = unsafe { dpre.at(block.start * hidden, block.len() * hidden) };
        for t in 0..self.tasks {
            let f = &self.filtered[self.of_task(t, &block, r1)];
            let du = Matrix::rows(&du[self.of_task(t, &block, r2)], r2);
            resize(before, block.len() * hidden);
            self.hidden(&block, f, Some(before), h);
            add_product(a, hidden, du.t(), Matrix::rows(h, hidden), T::one());
            resize(dh, h.len());
            product(dh, hidden, du, self.a.matrix(), T::one());
            gelu::backward(before, dh);
            let (dq, place) = (Matrix::rows(dh, hidden), self.of_task(t, &block, r1));
            // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
            let df = unsafe { df.at(place.start, place.len()) };
            product(df, r1, dq, self.b.matrix(), self.scale);
            add_product(b, r1, dq.t(), Matrix::rows(f, r1), self.scale);
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
        let inputs = [normal(1, &[2, 5, 6])?, normal(2, &[4, 5, 3])?, normal(3, &[6, 3])?, normal(4, &[2, 6])?];
        let paths = |v: &[Tensor]| {
            let path = |a: &Tensor, b: &Tensor| LowRankPath { a: a.clone(), b: b.clone(), scale: 0.5, dropout: None };
            (path(&v[2], &v[2]), path(&v[3], &v[3]))
        };
        let (fc1, fc2) = paths(&inputs);
        let [fused, composed] = Definition::ALL.map(|by| by.run(|| task_hidden(&inputs[0], &inputs[1], &fc1, &fc2)));
        close(&fused?, &composed?, 1e-12)?;
        check(&inputs.each_ref(), |v| task_hidden(&v[0], &v[1], &paths(v).0, &paths(v).1))
    }
}
