//! The thin product that starts a task's path at attention's projection.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::tpc::{ConditionKernel, TaskCondition};
use crate::ops::cpu::both_ways::BothWays;
use crate::ops::cpu::buffers::{resize, zeroed};
use crate::ops::cpu::float::Real;
use crate::ops::cpu::parts::{Fresh, Parts};
use crate::ops::cpu::product::{Matrix, add_product, product};
use crate::ops::cpu::simd;
use crate::ops::cpu::slices::values;
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel};
use crate::ops::linear;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `u_t = A norm(tpc_t + a)` for each task t; neither the TPC feature nor the normed patches are kept.
///
/// # Shapes
/// `a` `[r, C]`; result `[T*B*nW, N, r]`, the tasks leading.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn conditioned_down(condition: &TaskCondition, norm: &LayerNorm, a: &Tensor) -> Result<Tensor> {
    let step = ConditionedDown { condition: condition.clone(), norm: norm.clone(), a: a.clone() };
    only(apply(step)?)
}

#[derive(Clone)]
struct ConditionedDown {
    condition: TaskCondition,
    norm: LayerNorm,
    a: Tensor,
}

struct Kernel<'a, T: Real> {
    condition: ConditionKernel<'a, T>,
    norm: NormKernel<'a, T>,
    a: BothWays<'a, T>,
    rank: usize,
}

/// What a thread reuses from block to block.
#[derive(Default)]
struct Buffers<T> {
    gates: Vec<T>,
    dgates: Vec<T>,
    conditioned: Vec<T>,
    normed: Vec<T>,
}

impl ConditionedDown {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let rank = self.a.dim(0)?;
        Ok(Kernel { condition: self.condition.kernel()?, norm: self.norm.kernel()?, a: BothWays::lend(&self.a)?, rank })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// `tpc_t + a` of a block of windows, and the norm of it.
    fn normed(&self, block: &Range<usize>, t: usize, buffers: &mut Buffers<T>) {
        let size = self.condition.n * self.condition.c;
        let Buffers { gates, conditioned, normed, .. } = buffers;
        resize(conditioned, block.len() * size);
        for (w, y) in block.clone().zip(conditioned.chunks_exact_mut(size)) {
            self.condition.forward(w, t, T::one(), gates, y);
        }
        resize(normed, conditioned.len());
        self.norm.forward(conditioned, normed);
    }

    /// A block's rows of task `t` in the result.
    fn rows(&self, block: &Range<usize>, t: usize) -> Range<usize> {
        let (first, row) = (t * self.condition.windows, self.condition.n * self.rank);
        (first + block.start) * row..(first + block.end) * row
    }
}

impl Step for ConditionedDown {
    fn name(&self) -> &'static str {
        "conditioned-down"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { condition: self.condition.map(f)?, norm: self.norm.map(f)?, a: f(&self.a)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let [_, _, c] = self.condition.check(shapes)?;
        self.norm.check(shapes, c)?;
        let [rank, _] = shapes.sizes("A", &self.a)?;
        shapes.expect("A", &self.a, &[rank, c])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let conditioned = self.condition.feature()?.broadcast_add(&self.condition.attended)?.flatten_to(1)?;
        Ok(vec![linear(&self.norm.forward(&conditioned)?, &self.a, None)?])
    }
}

impl<T: Real> CpuKernel<T> for ConditionedDown {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let ConditionKernel { tasks, windows, n, c, .. } = kernel.condition;
        let mut u = Fresh::of(tasks * windows * n * kernel.rank);
        let out = u.parts();
        kernel.condition.blocks().for_each(Buffers::default, |buffers, block| {
            for t in 0..tasks {
                kernel.normed(&block, t, buffers);
                let place = kernel.rows(&block, t);
                // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                let out = unsafe { out.at(place.start, place.len()) };
                let (z, a) = (Matrix::rows(&buffers.normed, c), kernel.a.t());
                product(out, kernel.rank, z, a, T::one());
            }
        });
        // SAFETY: the blocks cover all windows of all tasks, and `product` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (tasks * windows, n, kernel.rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let ConditionKernel { tasks, n, c, .. } = kernel.condition;
        let mut da = vec![T::zero(); kernel.condition.attended.len()];
        let mut dscores = vec![T::zero(); kernel.condition.scores.len()];
        let parts = [&mut da, &mut dscores].map(|v| Parts::of(v));
        let start =
            || (kernel.norm.sums(), vec![T::zero(); kernel.a.len()], Buffers::default(), [Vec::new(), Vec::new()]);
        let (norm, dweight, ..) = kernel.condition.blocks().sum(
            start,
            |(norm, dweight, buffers, [dnormed, dconditioned]), block| {
                for t in 0..tasks {
                    kernel.normed(&block, t, buffers);
                    let du = Matrix::rows(&du[kernel.rows(&block, t)], kernel.rank);
                    add_product(dweight, c, du.t(), Matrix::rows(&buffers.normed, c), T::one());
                    resize(dnormed, buffers.normed.len());
                    product(dnormed, c, du, kernel.a.matrix(), T::one());
                    zeroed(dconditioned, dnormed.len());
                    kernel.norm.backward(&buffers.conditioned, dnormed, dconditioned, norm);
                    let Buffers { gates, dgates, .. } = buffers;
                    for (w, dy) in block.clone().zip(dconditioned.chunks_exact(n * c)) {
                        // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                        unsafe {
                            kernel.condition.backward((w, t), T::one(), dy, [gates, dgates], parts.each_ref());
                        }
                    }
                }
            },
            |sums, other| {
                sums.0.add(&other.0);
                simd::add(&mut sums.1, &other.1);
            },
        );
        grads.give_values(&self.condition.attended, da)?;
        grads.give_values(&self.condition.scores, dscores)?;
        grads.give_values(&self.a, dweight)?;
        norm.give(&self.norm, grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients() -> Result<()> {
        let inputs = [
            normal(1, &[3, 5, 4])?,
            normal(2, &[3, 2, 4, 5])?,
            normal(3, &[4])?,
            normal(4, &[4])?,
            normal(5, &[2, 4])?,
        ];
        let condition = |v: &[Tensor]| TaskCondition { attended: v[0].clone(), scores: v[1].clone(), tasks: 2 };
        let norm = |v: &[Tensor]| LayerNorm::new(v[2].clone(), v[3].clone());
        let [fused, composed] =
            Definition::ALL.map(|by| by.run(|| conditioned_down(&condition(&inputs), &norm(&inputs), &inputs[4])));
        close(&fused?, &composed?, 1e-12)?;
        check(&inputs.each_ref(), |v| conditioned_down(&condition(v), &norm(v), &v[4]))
    }
}
