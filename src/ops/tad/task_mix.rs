//! The end of a stage: each task's tokens mixed with its TPC feature.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::tpc::{ConditionKernel, TaskCondition};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Fresh, Parts, Real, Values, resize, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply};
use crate::ops::shapes::Shapes;
use crate::ops::swin::window::WindowGrid;
use candle_core::{Result, Tensor, WithDType};
use serde::{Deserialize, Serialize};
use std::mem::MaybeUninit;
use std::ops::Range;

/// How the gate at a stage's end reads the TPC feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TpcReading {
    /// As the paper describes: position by position.
    Positions,
    /// As the released code does: in each window, the values of `[C, M*M]` re-read as `[M*M, C]`. For files trained that way.
    Swapped,
}

/// `f_t = x_t + g (tpc_t - x_t)` for each task t, g one number.
///
/// # Shapes
/// `x` `[T*B, H*W, C]`, the tasks leading; `condition` in windows of `grid`; `share` g `[1]`; each task's result `[B, H*W, C]`.
///
/// The gradient of g is one sum over all values, most of which cancel: the fused step takes it in f64.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn task_mix(
    x: &Tensor,
    condition: &TaskCondition,
    share: &Tensor,
    grid: &WindowGrid,
    reading: TpcReading,
) -> Result<Vec<Tensor>> {
    let (x, condition, share) = (x.clone(), condition.clone(), share.clone());
    apply(TaskMix { x, condition, share, grid: *grid, reading })
}

#[derive(Clone)]
struct TaskMix {
    x: Tensor,
    condition: TaskCondition,
    share: Tensor,
    grid: WindowGrid,
    reading: TpcReading,
}

struct Kernel<'a, T: Real> {
    x: Values<'a, T>,
    condition: ConditionKernel<'a, T>,
    share: T,
    places: Vec<Option<u32>>,
    reading: TpcReading,
    /// Images, tokens of an image, windows of an image.
    images: usize,
    tokens: usize,
    windows: usize,
}

/// What a thread reuses from window to window.
#[derive(Default)]
struct Buffers<T> {
    gates: Vec<T>,
    dgates: Vec<T>,
    feature: Vec<T>,
    read: Vec<T>,
}

impl TaskMix {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let windows = self.grid.windows();
        Ok(Kernel {
            x: values(&self.x)?,
            condition: self.condition.kernel()?,
            share: values::<T>(&self.share)?[0],
            places: self.grid.places(),
            reading: self.reading,
            images: self.condition.attended.dim(0)? / windows,
            tokens: self.x.dim(1)?,
            windows,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The TPC feature of window `w` and task `t` as the gate reads it, into `buffers.read`.
    fn read(&self, w: usize, t: usize, Buffers { gates, feature, read, .. }: &mut Buffers<T>) {
        let ConditionKernel { n, c, .. } = self.condition;
        resize(read, n * c);
        if self.reading == TpcReading::Positions {
            return self.condition.forward(w, t, T::zero(), gates, read);
        }
        resize(feature, n * c);
        self.condition.forward(w, t, T::zero(), gates, feature);
        read.iter_mut().enumerate().for_each(|(i, read)| *read = feature[i % n * c + i / n]);
    }

    /// Where the patches of window `w` stand among their image's tokens, and the image's values among those of a task.
    fn places(&self, w: usize) -> (&[Option<u32>], Range<usize>) {
        let (n, size) = (self.condition.n, self.tokens * self.condition.c);
        let image = w / self.windows;
        (&self.places[w % self.windows * n..][..n], image * size..(image + 1) * size)
    }

    /// The tokens of task `t`, all images.
    fn task(&self, t: usize) -> Range<usize> {
        let size = self.images * self.tokens * self.condition.c;
        t * size..(t + 1) * size
    }
}

impl Step for TaskMix {
    fn name(&self) -> &'static str {
        "task-mix"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, condition: self.condition.map(f)?, share: f(&self.share)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([all, _, c], n) = (shapes.sizes("x", &self.x)?, self.grid.window() * self.grid.window());
        shapes.expect("x", &self.x, &[all, self.grid.tokens(), c])?;
        let images = shapes.times("images of all tasks", all, self.condition.tasks)?;
        self.condition.check(shapes)?;
        shapes.expect("attended", &self.condition.attended, &[images * self.grid.windows(), n, c])?;
        shapes.expect("the gate's share", &self.share, &[1])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let tpc = self.condition.feature()?.flatten_to(1)?;
        let read = match self.reading {
            TpcReading::Positions => tpc,
            TpcReading::Swapped => tpc.transpose(1, 2)?.contiguous()?.reshape(tpc.shape())?,
        };
        let mixed = (&self.x + (self.grid.reverse(&read)? - &self.x)?.broadcast_mul(&self.share)?)?;
        mixed.chunk(self.condition.tasks, 0)
    }
}

impl<T: Real> CpuKernel<T> for TaskMix {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let ConditionKernel { tasks, c, .. } = kernel.condition;
        let mut y: Vec<Fresh<T>> = (0..tasks).map(|t| Fresh::of(kernel.task(t).len())).collect();
        let parts: Vec<_> = y.iter_mut().map(Fresh::parts).collect();
        kernel.condition.blocks().for_each(Buffers::default, |buffers, block| {
            for (w, t) in block.flat_map(|w| (0..tasks).map(move |t| (w, t))) {
                kernel.read(w, t, buffers);
                let (places, image) = kernel.places(w);
                let x = &kernel.x[kernel.task(t)][image.clone()];
                // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
                unsafe { mix_rows(x, &buffers.read, places, kernel.share, &parts[t], image.start) };
            }
        });
        let shape = (kernel.images, kernel.tokens, c);
        // SAFETY: the blocks cover all windows, these by `WindowGrid::places` all tokens, and `mix_rows` writes each.
        let outputs = y.into_iter().map(|y| Output::new(unsafe { y.written() }, shape));
        Ok((outputs.collect(), Some(())))
    }

    /// `dx = (1 - g) dy`, `dtpc = g dy`, `dg = Σ dy (tpc - x)`.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let kernel = self.kernel::<T>()?;
        let dys = outputs.iter().map(|dy| dy.as_ref().map(values::<T>).transpose()).collect::<Result<Vec<_>>>()?;
        let mut dx = vec![T::zero(); kernel.x.len()];
        let mut da = vec![T::zero(); kernel.condition.attended.len()];
        let mut dscores = vec![T::zero(); kernel.condition.scores.len()];
        let [dx_out, da_out, dscores_out] = [&mut dx, &mut da, &mut dscores].map(|v| Parts::of(v));
        let (share, _) = kernel.condition.blocks().sum(
            || (0.0, Buffers::default()),
            |(share, buffers): &mut (f64, Buffers<T>), block| {
                for (w, t) in block.flat_map(|w| (0..kernel.condition.tasks).map(move |t| (w, t))) {
                    let Some(dy) = &dys[t] else { continue };
                    kernel.read(w, t, buffers);
                    let (places, image) = kernel.places(w);
                    let (x, dy) = (&kernel.x[kernel.task(t)][image.clone()], &dy[image.clone()]);
                    let first = kernel.task(t).start + image.start;
                    // SAFETY: `WindowGrid::places` has each token in one window, `Blocks` each window in one block.
                    *share +=
                        unsafe { mix_rows_backward(x, &mut buffers.read, places, kernel.share, dy, &dx_out, first) };
                    // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                    unsafe { kernel.read_backward(w, t, buffers, [&da_out, &dscores_out]) };
                }
            },
            |sum, other| sum.0 += other.0,
        );
        grads.give_values(&self.x, dx)?;
        grads.give_values(&self.condition.attended, da)?;
        grads.give_values(&self.condition.scores, dscores)?;
        grads.give_values(&self.share, vec![T::of(share)])
    }
}

impl<T: Real> Kernel<'_, T> {
    /// From the gradient of what the gate read, in `buffers.read`.
    ///
    /// # Safety
    /// No other thread works on this window.
    unsafe fn read_backward(&self, w: usize, t: usize, buffers: &mut Buffers<T>, out: [&Parts<T>; 2]) {
        let ConditionKernel { n, c, .. } = self.condition;
        let Buffers { gates, dgates, feature, read } = buffers;
        let dy = match self.reading {
            TpcReading::Positions => read,
            TpcReading::Swapped => {
                read.iter().enumerate().for_each(|(i, read)| feature[i % n * c + i / n] = *read);
                feature
            }
        };
        // SAFETY: the caller's promise, handed on.
        unsafe { self.condition.backward((w, t), T::zero(), dy, [gates, dgates], out) };
    }
}

simd::vectorised_fn! {
    /// `y = x + g (z - x)` for the patches of a window, `x` and `y` at their places; `y` begins at `first`.
    ///
    /// # Safety
    /// No other thread writes these places.
    unsafe fn mix_rows<T: Real>(
        x: &[T], z: &[T], places: &[Option<u32>], g: T, y: &Parts<'_, MaybeUninit<T>>, first: usize,
    ) -> () {
        let c = z.len() / places.len();
        for (place, z) in places.iter().zip(z.chunks_exact(c)) {
            let Some(place) = place else { continue };
            let at = *place as usize * c;
            // SAFETY: the caller's promise: these are one of `places`.
            let y = unsafe { y.at(first + at, c) };
            for ((y, x), z) in y.iter_mut().zip(&x[at..at + c]).zip(z) {
                y.write(*x + (*z - *x) * g);
            }
        }
    }
}

simd::vectorised_fn! {
    /// `dx = (1 - g) dy` at its place; `z` becomes `g dy`, 0 in the padding; gives `Σ dy (z - x)`.
    ///
    /// # Safety
    /// No other thread writes these places.
    unsafe fn mix_rows_backward<T: Real>(
        x: &[T], z: &mut [T], places: &[Option<u32>], g: T, dy: &[T], dx: &Parts<'_, T>, first: usize,
    ) -> f64 {
        let c = z.len() / places.len();
        let mut share = 0.0;
        for (place, z) in places.iter().zip(z.chunks_exact_mut(c)) {
            let Some(place) = place else {
                z.fill(T::zero());
                continue;
            };
            let at = *place as usize * c;
            // SAFETY: the caller's promise: these are one of `places`.
            let dx = unsafe { dx.at(first + at, c) };
            let (x, dy) = (&x[at..at + c], &dy[at..at + c]);
            let mut row = [0.0; LANES];
            for (i, (dy, (z, x))) in dy.iter().zip(z.iter().zip(x)).enumerate() {
                row[i % LANES] += wide(dy) * (wide(z) - wide(x));
            }
            share += row.iter().sum::<f64>();
            for ((dx, z), dy) in dx.iter_mut().zip(z).zip(dy) {
                *dx = *dy * (T::one() - g);
                *z = *dy * g;
            }
        }
        share
    }
}

/// Sums kept side by side.
const LANES: usize = 8;

#[inline(always)]
fn wide<T: WithDType>(value: &T) -> f64 {
    value.to_f64()
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
        let inputs =
            [normal(1, &[4, 15, 4])?, normal(2, &[windows, 4, 4])?, normal(3, &[windows, 2, 4, 4])?, normal(4, &[1])?];
        for reading in [TpcReading::Positions, TpcReading::Swapped] {
            let condition = |v: &[Tensor]| TaskCondition { attended: v[1].clone(), scores: v[2].clone(), tasks: 2 };
            let mixed = |v: &[Tensor]| Tensor::cat(&task_mix(&v[0], &condition(v), &v[3], &grid, reading)?, 0);
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| mixed(&inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.each_ref(), mixed)?;
        }
        Ok(())
    }

    #[test]
    fn a_task_that_nothing_reads_gets_no_gradient() -> Result<()> {
        let grid = WindowGrid::new((2, 2), 2, false)?;
        let inputs = [normal(1, &[2, 4, 2])?, normal(2, &[1, 4, 2])?, normal(3, &[1, 1, 2, 4])?, normal(4, &[1])?];
        check(&inputs.each_ref(), |v| {
            let condition = TaskCondition { attended: v[1].clone(), scores: v[2].clone(), tasks: 2 };
            Ok(task_mix(&v[0], &condition, &v[3], &grid, TpcReading::Positions)?.remove(1))
        })
    }
}
