//! A task's residual: the frozen product that tasks share and the path of its own.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::rows::of_width;
use super::task_path::TaskPath;
use super::task_sum::{SumKernel, TaskSum};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Real, all_of, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
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
    only(apply(TaskUpdate { x: x.clone(), sum: TaskSum::new(shared, filtered, path), drop_path })?)
}

#[derive(Clone)]
struct TaskUpdate {
    x: Tensor,
    sum: TaskSum,
    drop_path: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    sum: SumKernel<'a, T>,
    drop_path: Option<Vec<T>>,
    /// Rows of an image.
    tokens: usize,
    c: usize,
}

impl TaskUpdate {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (_, tokens, c) = self.x.dims3()?;
        Ok(Kernel { sum: self.sum.kernel(1)?, drop_path: self.drop_path.as_deref().map(all_of), tokens, c })
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
        Ok(Self { x: f(&self.x)?, sum: self.sum.map(f)?, drop_path: self.drop_path.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let sizes @ [images, n, c] = shapes.sizes("shared", &self.sum.shared)?;
        let all = self.sum.check(shapes, "shared", sizes)? * images;
        shapes.expect("x", &self.x, &[all, n, c])?;
        shapes.drop_path(self.drop_path.as_deref(), all)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        Ok(vec![(&self.x + scale_images(&self.sum.composed()?, self.drop_path.as_deref())?)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskUpdate {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let rows = kernel.sum.rows;
        let mut y = Fresh::of(x.len());
        let out = y.parts();
        rows.blocks().for_each(
            || (),
            |(), block| {
                for t in 0..rows.tasks {
                    let rows = rows.of(t, &block);
                    let place = of_width(&rows, kernel.c);
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    let y = kernel.sum.forward(t, &block, unsafe { out.at(place.start, place.len()) });
                    kernel.scale(rows, y);
                    simd::vectorised(|| simd::add(y, &x[place]));
                }
            },
        );
        // SAFETY: the blocks cover all rows of all tasks, and `SumKernel::forward` writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, self.x.shape())], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dys) = (self.kernel::<T>()?, values::<T>(dy)?);
        let of_task = |(): &mut (), t: usize, block: &Range<usize>, dsum: &mut [T]| {
            let rows = kernel.sum.rows.of(t, block);
            dsum.copy_from_slice(&dys[of_width(&rows, kernel.c)]);
            kernel.scale(rows, dsum);
        };
        let (gradients, ()) = kernel.sum.backward(|| (), of_task, |(), ()| ());
        grads.give(&self.x, dy.clone())?;
        gradients.give(&self.sum, grads)
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
