//! A task's residual: the frozen product that tasks share and the path of its own.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::shared::add_to_shared;
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
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `y_t = x_t + k (shared + s B f_t)` for each task t.
///
/// # Shapes
/// `x` `[T*B, N, C]`, `shared` `[B, N, C]`, `filtered` f `[T*B, N, r]`, `keep` k one factor for each of T*B or `None` for 1.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; another number of factors than T*B.
pub fn task_update(
    x: &Tensor,
    shared: &Tensor,
    filtered: &Tensor,
    path: &LowRankPath,
    keep: Option<Vec<f64>>,
) -> Result<Tensor> {
    let (x, shared, filtered) = (x.clone(), shared.clone(), filtered.clone());
    let step = TaskUpdate { x, shared, filtered, b: path.b.clone(), scale: path.scale, keep };
    only(apply(step)?)
}

#[derive(Clone)]
struct TaskUpdate {
    x: Tensor,
    shared: Tensor,
    filtered: Tensor,
    b: Tensor,
    scale: f64,
    keep: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    shared: Values<'a, T>,
    filtered: Values<'a, T>,
    b: BothWays<'a, T>,
    scale: T,
    keep: Option<Vec<T>>,
    blocks: Blocks,
    /// Rows that tasks share, and those of an image.
    rows: usize,
    tokens: usize,
    tasks: usize,
    c: usize,
    rank: usize,
}

impl TaskUpdate {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((images, tokens, c), (tb, _, _)) = (self.shared.dims3()?, self.x.dims3()?);
        Ok(Kernel {
            shared: values(&self.shared)?,
            filtered: values(&self.filtered)?,
            b: BothWays::lend(&self.b)?,
            scale: T::of(self.scale),
            keep: self.keep.as_ref().map(|keep| keep.iter().map(|k| T::of(*k)).collect()),
            blocks: Blocks::of(images * tokens, 1),
            rows: images * tokens,
            tokens,
            tasks: tb / images,
            c,
            rank: self.b.dim(1)?,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// A block's rows of task `t`.
    fn of_task(&self, t: usize, block: &Range<usize>) -> Range<usize> {
        t * self.rows + block.start..t * self.rows + block.end
    }

    /// `y *= k` for rows of all tasks.
    fn scale(&self, rows: Range<usize>, y: &mut [T]) {
        let Some(keep) = &self.keep else { return };
        for (row, y) in rows.zip(y.chunks_exact_mut(self.c)) {
            let k = keep[row / self.tokens];
            simd::vectorised(|| {
                for y in y {
                    *y *= k;
                }
            });
        }
    }
}

impl Step for TaskUpdate {
    fn name(&self) -> &'static str {
        "task-update"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let (x, shared) = (f(&self.x)?, f(&self.shared)?);
        Ok(Self { x, shared, filtered: f(&self.filtered)?, b: f(&self.b)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let [images, n, c] = shapes.sizes("shared", &self.shared)?;
        let [all, _, rank] = shapes.sizes("filtered", &self.filtered)?;
        shapes.times("images of all tasks", all, images)?;
        shapes.expect("x", &self.x, &[all, n, c])?;
        shapes.expect("filtered", &self.filtered, &[all, n, rank])?;
        shapes.expect("B", &self.b, &[c, rank])?;
        shapes.keep(self.keep.as_deref(), all)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let update = add_to_shared(&self.shared, &scaled_up(&self.filtered, &self.b, self.scale)?)?;
        Ok(vec![(&self.x + scale_images(&update, self.keep.as_deref())?)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskUpdate {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let (c, rank) = (kernel.c, kernel.rank);
        let mut y = Fresh::of(x.len());
        let out = y.parts();
        kernel.blocks.for_each(
            || (),
            |(), block| {
                for t in 0..kernel.tasks {
                    let rows = kernel.of_task(t, &block);
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    let y = unsafe { out.at(rows.start * c, rows.len() * c) };
                    let y = y.write_copy_of_slice(&kernel.shared[block.start * c..block.end * c]);
                    let f = Matrix::rows(&kernel.filtered[rows.start * rank..rows.end * rank], rank);
                    add_product(y, c, f, kernel.b.t(), kernel.scale);
                    kernel.scale(rows.clone(), y);
                    simd::vectorised(|| simd::add(y, &x[rows.start * c..rows.end * c]));
                }
            },
        );
        // SAFETY: the blocks cover all rows of all tasks, and copying `shared` writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, self.x.shape())], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dys) = (self.kernel::<T>()?, values::<T>(dy)?);
        let (c, rank) = (kernel.c, kernel.rank);
        let (mut dshared, mut df) = (vec![T::zero(); kernel.shared.len()], Fresh::of(kernel.filtered.len()));
        let (db, _) = {
            let (dshared, df) = (Parts::of(&mut dshared), df.parts());
            kernel.blocks.sum(
                || (vec![T::zero(); kernel.b.len()], Vec::new()),
                |(db, update), block| {
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    let dshared = unsafe { dshared.at(block.start * c, block.len() * c) };
                    for t in 0..kernel.tasks {
                        let rows = kernel.of_task(t, &block);
                        resize(update, rows.len() * c);
                        update.copy_from_slice(&dys[rows.start * c..rows.end * c]);
                        kernel.scale(rows.clone(), update);
                        simd::vectorised(|| simd::add(dshared, update));
                        let (d, thin) = (Matrix::rows(update, c), rows.start * rank..rows.end * rank);
                        // SAFETY: as above.
                        let df = unsafe { df.at(thin.start, thin.len()) };
                        product(df, rank, d, kernel.b.matrix(), kernel.scale);
                        let f = Matrix::rows(&kernel.filtered[thin], rank);
                        add_product(db, rank, d.t(), f, kernel.scale);
                    }
                },
                |sums, other| simd::add(&mut sums.0, &other.0),
            )
        };
        if self.x.track_op() {
            grads.give(&self.x, dy.clone())?;
        }
        grads.give_values(&self.shared, dshared)?;
        // SAFETY: the blocks cover all rows of all tasks, and `product` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.filtered, df)?;
        grads.give_values(&self.b, db)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients() -> Result<()> {
        let inputs = [normal(1, &[4, 5, 3])?, normal(2, &[2, 5, 3])?, normal(3, &[4, 5, 2])?, normal(4, &[3, 2])?];
        let path = |b: &Tensor| LowRankPath { a: b.clone(), b: b.clone(), scale: 0.5, dropout: None };
        for keep in [None, Some(vec![0.0, 1.5, 1.0, 0.5])] {
            let step = |v: &[Tensor]| task_update(&v[0], &v[1], &v[2], &path(&v[3]), keep.clone());
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(&inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.each_ref(), step)?;
        }
        Ok(())
    }
}
