//! A task's first residual: attention's projection, shared and of the task's own path, back at the tokens' places.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::factor::FactorSums;
use super::rows::{TaskRows, of_width};
use super::shared::add_to_shared;
use super::task_path::TaskPath;
use super::up::{Up, UpKernel};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, Values, all_of, values, zeroed};
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use crate::ops::swin::window::WindowGrid;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
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
    let (x, shared, up) = (x.clone(), shared.clone(), Up::new(filtered, path));
    only(apply(TaskProjection { x, shared, up, grid: *grid, drop_path })?)
}

#[derive(Clone)]
struct TaskProjection {
    x: Tensor,
    shared: Tensor,
    up: Up,
    grid: WindowGrid,
    drop_path: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    shared: Values<'a, T>,
    up: UpKernel<'a, T>,
    drop_path: Option<Vec<T>>,
    places: Vec<Option<u32>>,
    /// In windows.
    rows: TaskRows,
    images: usize,
    tokens: usize,
    /// Windows of one image.
    windows: usize,
    c: usize,
}

impl TaskProjection {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((images, tokens, c), (all, n, _)) = (self.x.dims3()?, self.up.filtered.dims3()?);
        let windows = self.grid.windows();
        Ok(Kernel {
            shared: values(&self.shared)?,
            up: self.up.kernel()?,
            drop_path: self.drop_path.as_deref().map(all_of),
            places: self.grid.places(),
            rows: TaskRows { tasks: all / (images * windows), units: images * windows, unit: n },
            images,
            tokens,
            windows,
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
            let n = self.rows.unit;
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
        Ok(Self { x: f(&self.x)?, shared: f(&self.shared)?, up: self.up.map(f)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], n) = (shapes.sizes("x", &self.x)?, self.grid.window() * self.grid.window());
        shapes.expect("x", &self.x, &[images, self.grid.tokens(), c])?;
        let windows = images * self.grid.windows();
        shapes.expect("shared", &self.shared, &[windows, n, c])?;
        let tasks = self.up.check(shapes, [windows, n, c])?;
        shapes.drop_path(self.drop_path.as_deref(), tasks * images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let update = add_to_shared(&self.shared, &self.up.composed()?)?;
        let update = scale_images(&self.grid.reverse(&update)?, self.drop_path.as_deref())?;
        Ok(vec![add_to_shared(&self.x, &update)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskProjection {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let (rows, c) = (kernel.rows, kernel.c);
        let mut y = Fresh::of(rows.tasks * x.len());
        let out = y.parts();
        rows.blocks().for_each(Vec::new, |update, block| {
            for t in 0..rows.tasks {
                update.clear();
                update.extend_from_slice(&kernel.shared[of_width(&rows.shared(&block), c)]);
                kernel.up.add(t, &rows.of(t, &block), update);
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

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dys) = (self.kernel::<T>()?, values::<T>(dy)?);
        let mut dx = vec![T::zero(); self.x.elem_count()];
        let (mut dshared, mut df) = (vec![T::zero(); kernel.shared.len()], Fresh::of(kernel.up.filtered.len()));
        let (db, _) = {
            let (residuals, df) = ([Parts::of(&mut dx), Parts::of(&mut dshared)], df.parts());
            kernel.rows.blocks().sum(
                || (kernel.up.b.sums(), Vec::new()),
                |(db, update), block| kernel.backward(&dys, block, &residuals, &df, db, update),
                |sums, other| sums.0.add(&other.0),
            )
        };
        grads.give_values(&self.x, dx)?;
        grads.give_values(&self.shared, dshared)?;
        // SAFETY: the blocks cover all windows of all tasks, and `UpKernel::backward` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.up.filtered, df)?;
        db.give(&self.up.b, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of windows, task by task.
    fn backward(
        &self,
        dy: &[T],
        block: Range<usize>,
        [dx, dshared]: &[Parts<T>; 2],
        df: &Parts<MaybeUninit<T>>,
        db: &mut FactorSums<T>,
        update: &mut Vec<T>,
    ) {
        let (c, place) = (self.c, of_width(&self.rows.shared(&block), self.c));
        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
        let dshared = unsafe { dshared.at(place.start, place.len()) };
        for t in 0..self.rows.tasks {
            zeroed(update, dshared.len());
            for (row, token, k) in self.patches(t, &block) {
                let dy = &dy[(t * self.images * self.tokens + token) * c..][..c];
                // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
                let dx = unsafe { dx.at(token * c, c) };
                let update = &mut update[row * c..][..c];
                simd::vectorised(|| {
                    simd::add(dx, dy);
                    simd::add_scaled(update, dy, k);
                });
            }
            simd::vectorised(|| simd::add(dshared, update));
            // SAFETY: `Blocks` puts each window into one block, so that no other thread works on its rows.
            unsafe { self.up.backward(t, &self.rows.of(t, &block), update, df, db) };
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
