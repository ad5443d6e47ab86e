//! A task's residual: the frozen product that tasks share and the path of its own.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::factor::FactorSums;
use super::rows::{TaskRows, of_width};
use super::shared::add_to_shared;
use super::task_path::TaskPath;
use super::up::{Up, UpKernel};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, Values, all_of, resize, values};
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `y_t = x_t + k (shared + s B_t f_t)` for each task t.
///
/// # Shapes
/// `x` `[T*B, N, C]`, `shared` `[B, N, C]`, `filtered` f `[T*B, N, r]`, `drop_path` k one factor for each of T*B or `None` for 1.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; another number of factors than T*B.
pub fn task_update(
    x: &Tensor,
    shared: &Tensor,
    filtered: &Tensor,
    path: &TaskPath,
    drop_path: Option<Vec<f64>>,
) -> Result<Tensor> {
    only(apply(TaskUpdate { x: x.clone(), shared: shared.clone(), up: Up::new(filtered, path), drop_path })?)
}

#[derive(Clone)]
struct TaskUpdate {
    x: Tensor,
    shared: Tensor,
    up: Up,
    drop_path: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    shared: Values<'a, T>,
    up: UpKernel<'a, T>,
    drop_path: Option<Vec<T>>,
    rows: TaskRows,
    /// Rows of an image.
    tokens: usize,
    c: usize,
}

impl TaskUpdate {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((images, tokens, c), (all, _, _)) = (self.shared.dims3()?, self.x.dims3()?);
        Ok(Kernel {
            shared: values(&self.shared)?,
            up: self.up.kernel()?,
            drop_path: self.drop_path.as_deref().map(all_of),
            rows: TaskRows { tasks: all / images, units: images * tokens, unit: 1 },
            tokens,
            c,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// `y *= k` for rows of all tasks.
    fn scale(&self, rows: Range<usize>, y: &mut [T]) {
        let Some(factors) = &self.drop_path else { return };
        for (row, y) in rows.zip(y.chunks_exact_mut(self.c)) {
            let k = factors[row / self.tokens];
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
        Ok(Self { x: f(&self.x)?, shared: f(&self.shared)?, up: self.up.map(f)?, drop_path: self.drop_path.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let sizes @ [images, n, c] = shapes.sizes("shared", &self.shared)?;
        let all = self.up.check(shapes, sizes)? * images;
        shapes.expect("x", &self.x, &[all, n, c])?;
        shapes.drop_path(self.drop_path.as_deref(), all)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let update = add_to_shared(&self.shared, &self.up.composed()?)?;
        Ok(vec![(&self.x + scale_images(&update, self.drop_path.as_deref())?)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskUpdate {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let (rows, c) = (kernel.rows, kernel.c);
        let mut y = Fresh::of(x.len());
        let out = y.parts();
        rows.blocks().for_each(
            || (),
            |(), block| {
                for t in 0..rows.tasks {
                    let rows = rows.of(t, &block);
                    let place = of_width(&rows, c);
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    let y = unsafe { out.at(place.start, place.len()) };
                    let y = y.write_copy_of_slice(&kernel.shared[of_width(&block, c)]);
                    kernel.up.add(t, &rows, y);
                    kernel.scale(rows, y);
                    simd::vectorised(|| simd::add(y, &x[place]));
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
        let (mut dshared, mut df) = (vec![T::zero(); kernel.shared.len()], Fresh::of(kernel.up.filtered.len()));
        let (db, _) = {
            let (dshared, df) = (Parts::of(&mut dshared), df.parts());
            kernel.rows.blocks().sum(
                || (kernel.up.b.sums(), Vec::new()),
                |(db, update), block| kernel.backward(&dys, block, &dshared, &df, db, update),
                |sums, other| sums.0.add(&other.0),
            )
        };
        grads.give(&self.x, dy.clone())?;
        grads.give_values(&self.shared, dshared)?;
        // SAFETY: the blocks cover all rows of all tasks, and `UpKernel::backward` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.up.filtered, df)?;
        db.give(&self.up.b, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of rows, task by task.
    fn backward(
        &self,
        dy: &[T],
        block: Range<usize>,
        dshared: &Parts<T>,
        df: &Parts<MaybeUninit<T>>,
        db: &mut FactorSums<T>,
        update: &mut Vec<T>,
    ) {
        let place = of_width(&block, self.c);
        // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
        let dshared = unsafe { dshared.at(place.start, place.len()) };
        for t in 0..self.rows.tasks {
            let rows = self.rows.of(t, &block);
            resize(update, dshared.len());
            update.copy_from_slice(&dy[of_width(&rows, self.c)]);
            self.scale(rows.clone(), update);
            simd::vectorised(|| simd::add(dshared, update));
            // SAFETY: `Blocks` puts each row into one block, so that no other thread works on these.
            unsafe { self.up.backward(t, &rows, update, df, db) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use crate::ops::{Definition, Factor};

    #[test]
    fn values_and_gradients() -> Result<()> {
        let inputs = [
            normal(1, &[4, 5, 3])?,
            normal(2, &[2, 5, 3])?,
            normal(3, &[4, 5, 2])?,
            normal(4, &[3, 2])?,
            normal(5, &[3, 2])?,
        ];
        for (inputs, drop_path) in [(&inputs[..4], None), (&inputs, Some(vec![0.0, 1.5, 1.0, 0.5]))] {
            let step = |v: &[Tensor]| {
                let path = TaskPath { a: Factor::of(&v[3..]), b: Factor::of(&v[3..]), scale: 0.5 };
                task_update(&v[0], &v[1], &v[2], &path, drop_path.clone())
            };
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.iter().collect::<Vec<_>>(), step)?;
        }
        Ok(())
    }
}
