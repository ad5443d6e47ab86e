//! A task's first residual: attention's projection, shared and of the task's own path, back at the tokens' places.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::shared::add_to_shared;
use super::task_path::TaskPath;
use super::task_sum::{SumKernel, TaskSum};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, all_of, unwritten, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use crate::ops::swin::window::WindowGrid;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `x_t = x + k reverse(shared + s B_t f_t)` for each task t.
///
/// # Shapes
/// `x` `[B, H*W, C]`; `shared` `[B*nW, N, C]` and `filtered` f `[T*B*nW, N, r]` in windows of `grid`; `drop_path` k one factor for
/// each of T*B or `None` for 1; result `[T*B, H*W, C]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; another number of factors than T*B.
pub fn task_projection(
    x: &Tensor,
    shared: &Tensor,
    filtered: &Tensor,
    path: &TaskPath,
    grid: &WindowGrid,
    drop_path: Option<Vec<f64>>,
) -> Result<Tensor> {
    only(apply(TaskProjection { x: x.clone(), sum: TaskSum::new(shared, filtered, path), grid: *grid, drop_path })?)
}

#[derive(Clone)]
struct TaskProjection {
    x: Tensor,
    /// In windows.
    sum: TaskSum,
    grid: WindowGrid,
    drop_path: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    sum: SumKernel<'a, T>,
    drop_path: Option<Vec<T>>,
    places: Vec<Option<u32>>,
    images: usize,
    tokens: usize,
    /// Windows of one image.
    windows: usize,
    c: usize,
}

impl TaskProjection {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (images, tokens, c) = self.x.dims3()?;
        Ok(Kernel {
            sum: self.sum.kernel(self.grid.window() * self.grid.window())?,
            drop_path: self.drop_path.as_deref().map(all_of),
            places: self.grid.places(),
            images,
            tokens,
            windows: self.grid.windows(),
            c,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// Each patch of a block: its row there, its token among those of all images, and its image's factor for task `t`.
    fn patches(&self, t: usize, block: &Range<usize>) -> impl Iterator<Item = (usize, usize, T)> {
        block.clone().enumerate().flat_map(move |(i, w)| {
            let image = w / self.windows;
            let k = self.drop_path.as_ref().map_or(T::one(), |factors| factors[t * self.images + image]);
            let n = self.sum.rows.unit;
            let places = &self.places[w % self.windows * n..][..n];
            let at = move |(j, place): (usize, &Option<u32>)| {
                place.map(|place| (i * n + j, image * self.tokens + place as usize, k))
            };
            places.iter().enumerate().filter_map(at)
        })
    }
}

impl Step for TaskProjection {
    fn name(&self) -> &'static str {
        "task-projection"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, sum: self.sum.map(f)?, grid: self.grid, drop_path: self.drop_path.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], n) = (shapes.sizes("x", &self.x)?, self.grid.window() * self.grid.window());
        shapes.expect("x", &self.x, &[images, self.grid.tokens(), c])?;
        let tasks = self.sum.check(shapes, "shared", [images * self.grid.windows(), n, c])?;
        shapes.drop_path(self.drop_path.as_deref(), tasks * images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let update = scale_images(&self.grid.reverse(&self.sum.composed()?)?, self.drop_path.as_deref())?;
        Ok(vec![add_to_shared(&self.x, &update)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskProjection {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let (rows, c) = (kernel.sum.rows, kernel.c);
        let mut y = Fresh::of(rows.tasks * x.len());
        let out = y.parts();
        rows.blocks().for_each(Vec::new, |update, block| {
            for t in 0..rows.tasks {
                let update = kernel.sum.forward(t, &block, unwritten(update, rows.shared(&block).len() * c));
                for (row, token, k) in kernel.patches(t, &block) {
                    // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
                    let y = unsafe { out.at(t * x.len() + token * c, c) };
                    let y = y.write_copy_of_slice(&x[token * c..][..c]);
                    simd::vectorised(|| simd::add_scaled(y, &update[row * c..][..c], k));
                }
            }
        });
        let all = rows.tasks * kernel.images;
        // SAFETY: the blocks cover all windows, these by `WindowGrid::places` all tokens, and copying x writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, (all, kernel.tokens, c))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dys) = (self.kernel::<T>()?, values::<T>(dy)?);
        let mut dx = vec![T::zero(); self.x.elem_count()];
        let (gradients, ()) = {
            let dx = Parts::of(&mut dx);
            let of_task =
                |(): &mut (), t, block: &Range<usize>, dsum: &mut [T]| kernel.backward(&dys, t, block, &dx, dsum);
            kernel.sum.backward(|| (), of_task, |(), ()| ())
        };
        grads.give_values(&self.x, dx)?;
        gradients.give(&self.sum, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// Takes one task's gradients to the windows of a block: `dx += dy`, and `dsum = k dy`, 0 in the padding.
    fn backward(&self, dy: &[T], t: usize, block: &Range<usize>, dx: &Parts<T>, dsum: &mut [T]) {
        let c = self.c;
        dsum.fill(T::zero());
        for (row, token, k) in self.patches(t, block) {
            let dy = &dy[(t * self.images * self.tokens + token) * c..][..c];
            // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
            let dx = unsafe { dx.at(token * c, c) };
            let dsum = &mut dsum[row * c..][..c];
            simd::vectorised(|| {
                simd::add(dx, dy);
                simd::add_scaled(dsum, dy, k);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use crate::ops::{Definition, Factor};

    #[test]
    fn values_and_gradients_on_a_map_that_is_padded_and_shifted() -> Result<()> {
        let grid = WindowGrid::new((3, 5), 2, true)?;
        let windows = 2 * grid.windows();
        let inputs = [
            normal(1, &[2, 15, 3])?,
            normal(2, &[windows, 4, 3])?,
            normal(3, &[2 * windows, 4, 2])?,
            normal(4, &[3, 2])?,
            normal(5, &[3, 2])?,
        ];
        for (inputs, drop_path) in [(&inputs[..4], None), (&inputs, Some(vec![0.0, 1.5, 1.0, 0.5]))] {
            let step = |v: &[Tensor]| {
                let path = TaskPath { a: Factor::of(&v[3..]), b: Factor::of(&v[3..]), scale: 0.5 };
                task_projection(&v[0], &v[1], &v[2], &path, &grid, drop_path.clone())
            };
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.iter().collect::<Vec<_>>(), step)?;
        }
        Ok(())
    }
}
