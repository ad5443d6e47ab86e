//! A task's first residual: attention's projection, shared and of the task's own path, back at the tokens' places.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::shared::add_to_shared;
use crate::ops::cpu::blocks::Blocks;
use crate::ops::cpu::both_ways::BothWays;
use crate::ops::cpu::buffers::zeroed;
use crate::ops::cpu::float::Real;
use crate::ops::cpu::parts::{Fresh, Parts};
use crate::ops::cpu::product::{Matrix, add_product, product};
use crate::ops::cpu::simd;
use crate::ops::cpu::slices::{Values, values};
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::low_rank::{LowRankPath, scaled_up};
use crate::ops::scale_images;
use crate::ops::shapes::Shapes;
use crate::ops::swin::window::WindowGrid;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `x_t = x + k reverse(shared + s B f_t)` for each task t.
///
/// # Shapes
/// `x` `[B, H*W, C]`; `shared` `[B*nW, N, C]` and `filtered` f `[T*B*nW, N, r]` in windows of `grid`; `keep` k one factor for
/// each of T*B or `None` for 1; result `[T*B, H*W, C]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; another number of factors than T*B.
pub fn task_projection(
    x: &Tensor,
    shared: &Tensor,
    filtered: &Tensor,
    path: &LowRankPath,
    grid: &WindowGrid,
    keep: Option<Vec<f64>>,
) -> Result<Tensor> {
    let (x, shared, filtered) = (x.clone(), shared.clone(), filtered.clone());
    let step = TaskProjection { x, shared, filtered, b: path.b.clone(), scale: path.scale, grid: *grid, keep };
    only(apply(step)?)
}

#[derive(Clone)]
struct TaskProjection {
    x: Tensor,
    shared: Tensor,
    filtered: Tensor,
    b: Tensor,
    scale: f64,
    grid: WindowGrid,
    keep: Option<Vec<f64>>,
}

struct Kernel<'a, T: Real> {
    shared: Values<'a, T>,
    filtered: Values<'a, T>,
    b: BothWays<'a, T>,
    scale: T,
    keep: Option<Vec<T>>,
    places: Vec<Option<u32>>,
    blocks: Blocks,
    images: usize,
    tokens: usize,
    /// Windows of one image, and patches of one window.
    windows: usize,
    n: usize,
    tasks: usize,
    c: usize,
    rank: usize,
}

impl TaskProjection {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let ((images, tokens, c), (all, n, rank)) = (self.x.dims3()?, self.filtered.dims3()?);
        let windows = self.grid.windows();
        Ok(Kernel {
            shared: values(&self.shared)?,
            filtered: values(&self.filtered)?,
            b: BothWays::lend(&self.b)?,
            scale: T::of(self.scale),
            keep: self.keep.as_ref().map(|keep| keep.iter().map(|k| T::of(*k)).collect()),
            places: self.grid.places(),
            blocks: Blocks::of(images * windows, n),
            images,
            tokens,
            windows,
            n,
            tasks: all / (images * windows),
            c,
            rank,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The filtered rows of task `t` in a block of windows.
    fn filtered(&self, t: usize, block: &Range<usize>) -> Range<usize> {
        let first = t * self.images * self.windows;
        (first + block.start) * self.n * self.rank..(first + block.end) * self.n * self.rank
    }

    /// Each row of a block: its number there, its token among those of all images, its image and its factor for task `t`.
    fn rows(&self, t: usize, block: &Range<usize>) -> impl Iterator<Item = (usize, usize, T)> {
        block.clone().enumerate().flat_map(move |(i, w)| {
            let image = w / self.windows;
            let k = self.keep.as_ref().map_or(T::one(), |keep| keep[t * self.images + image]);
            let places = &self.places[w % self.windows * self.n..][..self.n];
            let at = move |(j, place): (usize, &Option<u32>)| {
                place.map(|place| (i * self.n + j, image * self.tokens + place as usize, k))
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
        let (x, shared) = (f(&self.x)?, f(&self.shared)?);
        Ok(Self { x, shared, filtered: f(&self.filtered)?, b: f(&self.b)?, ..self.clone() })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], n) = (shapes.sizes("x", &self.x)?, self.grid.window() * self.grid.window());
        let [all, _, rank] = shapes.sizes("filtered", &self.filtered)?;
        shapes.expect("x", &self.x, &[images, self.grid.tokens(), c])?;
        let windows = images * self.grid.windows();
        let tasks = shapes.times("windows of all tasks", all, windows)?;
        shapes.expect("shared", &self.shared, &[windows, n, c])?;
        shapes.expect("filtered", &self.filtered, &[all, n, rank])?;
        shapes.expect("B", &self.b, &[c, rank])?;
        shapes.keep(self.keep.as_deref(), tasks * images)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let update = add_to_shared(&self.shared, &scaled_up(&self.filtered, &self.b, self.scale)?)?;
        let update = scale_images(&self.grid.reverse(&update)?, self.keep.as_deref())?;
        Ok(vec![add_to_shared(&self.x, &update)?])
    }
}

impl<T: Real> CpuKernel<T> for TaskProjection {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (kernel, x) = (self.kernel::<T>()?, values::<T>(&self.x)?);
        let (c, n, rank) = (kernel.c, kernel.n, kernel.rank);
        let mut y = Fresh::of(kernel.tasks * x.len());
        let out = y.parts();
        kernel.blocks.for_each(Vec::new, |update, block| {
            for t in 0..kernel.tasks {
                update.clear();
                update.extend_from_slice(&kernel.shared[block.start * n * c..block.end * n * c]);
                let f = Matrix::rows(&kernel.filtered[kernel.filtered(t, &block)], rank);
                add_product(update, c, f, kernel.b.t(), kernel.scale);
                for (row, token, k) in kernel.rows(t, &block) {
                    // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
                    let y = unsafe { out.at(t * x.len() + token * c, c) };
                    let y = y.write_copy_of_slice(&x[token * c..][..c]);
                    simd::vectorised(|| simd::add_scaled(y, &update[row * c..][..c], k));
                }
            }
        });
        let tb = kernel.tasks * kernel.images;
        // SAFETY: the blocks cover all windows, these by `WindowGrid::places` all tokens, and copying x writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, (tb, kernel.tokens, c))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dys) = (self.kernel::<T>()?, values::<T>(dy)?);
        let mut dx = vec![T::zero(); self.x.elem_count()];
        let (mut dshared, mut df) = (vec![T::zero(); kernel.shared.len()], Fresh::of(kernel.filtered.len()));
        let (db, _) = {
            let (residuals, df) = ([Parts::of(&mut dx), Parts::of(&mut dshared)], df.parts());
            kernel.blocks.sum(
                || (vec![T::zero(); kernel.b.len()], Vec::new()),
                |(db, update), block| kernel.backward(&dys, block, &residuals, &df, db, update),
                |sums, other| simd::add(&mut sums.0, &other.0),
            )
        };
        grads.give_values(&self.x, dx)?;
        grads.give_values(&self.shared, dshared)?;
        // SAFETY: the blocks cover all windows of all tasks, and `product` writes each.
        let df = unsafe { df.written() };
        grads.give_values(&self.filtered, df)?;
        grads.give_values(&self.b, db)
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
        db: &mut [T],
        update: &mut Vec<T>,
    ) {
        let (c, rank, rows) = (self.c, self.rank, block.len() * self.n);
        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
        let dshared = unsafe { dshared.at(block.start * self.n * c, rows * c) };
        for t in 0..self.tasks {
            zeroed(update, rows * c);
            for (row, token, k) in self.rows(t, &block) {
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
            let (d, place) = (Matrix::rows(update, c), self.filtered(t, &block));
            // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
            let df = unsafe { df.at(place.start, place.len()) };
            product(df, rank, d, self.b.matrix(), self.scale);
            add_product(db, rank, d.t(), Matrix::rows(&self.filtered[place], rank), self.scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients_on_a_map_that_is_padded_and_shifted() -> Result<()> {
        let grid = WindowGrid::new((3, 5), 2, true)?;
        let windows = 2 * grid.windows();
        let inputs = [
            normal(1, &[2, 15, 3])?,
            normal(2, &[windows, 4, 3])?,
            normal(3, &[2 * windows, 4, 2])?,
            normal(4, &[3, 2])?,
        ];
        let path = |b: &Tensor| LowRankPath { a: b.clone(), b: b.clone(), scale: 0.5, dropout: None };
        for keep in [None, Some(vec![0.0, 1.5, 1.0, 0.5])] {
            let step = |v: &[Tensor]| task_projection(&v[0], &v[1], &v[2], &path(&v[3]), &grid, keep.clone());
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(&inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.each_ref(), step)?;
        }
        Ok(())
    }
}
