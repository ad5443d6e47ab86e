//! The thin product that starts a task's path at attention's projection.
#![allow(unsafe_code)] // blocks of windows write their own parts of the outputs

use super::factor::{Factor, FactorKernel, FactorSums};
use super::rows::{TaskRows, of_width};
use super::tpc::{ConditionKernel, TaskCondition};
use crate::ops::cpu::{Fresh, Parts, Real, resize, values, zeroed};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel, NormSums};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `u_t = A_t norm(tpc_t + a)` for each task t; neither the TPC feature nor the normed patches are kept.
///
/// # Shapes
/// A `[r, C]`; result `[T*B*nW, N, r]`, the tasks leading.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn conditioned_down(condition: &TaskCondition, norm: &LayerNorm, a: &Factor) -> Result<Tensor> {
    let step = ConditionedDown { condition: condition.clone(), norm: norm.clone(), a: a.clone() };
    only(apply(step)?)
}

#[derive(Clone)]
struct ConditionedDown {
    condition: TaskCondition,
    norm: LayerNorm,
    a: Factor,
}

struct Kernel<'a, T: Real> {
    condition: ConditionKernel<'a, T>,
    norm: NormKernel<'a, T>,
    a: FactorKernel<'a, T>,
    rows: TaskRows,
}

/// What a thread reuses from block to block.
#[derive(Default)]
struct Buffers<T> {
    gates: Vec<T>,
    dgates: Vec<T>,
    conditioned: Vec<T>,
    normed: Vec<T>,
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    norm: NormSums<T>,
    a: FactorSums<T>,
    buffers: Buffers<T>,
    dnormed: Vec<T>,
    dconditioned: Vec<T>,
}

impl ConditionedDown {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let condition = self.condition.kernel()?;
        let rows = TaskRows { tasks: condition.tasks, units: condition.windows, unit: condition.n };
        Ok(Kernel { condition, norm: self.norm.kernel()?, a: self.a.kernel()?, rows })
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
}

impl Step for ConditionedDown {
    fn name(&self) -> &'static str {
        "conditioned-down"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { condition: self.condition.map(f)?, norm: self.norm.map(f)?, a: self.a.map(f)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let [_, _, c] = self.condition.check(shapes)?;
        self.norm.check(shapes, c)?;
        self.a.check(shapes, "A", self.condition.tasks, None, c).map(drop)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let conditioned = self.condition.feature()?.broadcast_add(&self.condition.attended)?.flatten_to(1)?;
        Ok(vec![self.a.forward(&self.norm.forward(&conditioned)?)?])
    }
}

impl<T: Real> CpuKernel<T> for ConditionedDown {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let (rows, rank) = (kernel.rows, kernel.a.out);
        let mut u = Fresh::of(rows.len() * rank);
        let out = u.parts();
        rows.blocks().for_each(Buffers::default, |buffers, block| {
            for t in 0..rows.tasks {
                kernel.normed(&block, t, buffers);
                let place = of_width(&rows.of(t, &block), rank);
                // SAFETY: `Blocks` puts each window into one block, so that no other part has these places.
                let out = unsafe { out.at(place.start, place.len()) };
                kernel.a.forward(t, &buffers.normed, T::one(), out);
            }
        });
        // SAFETY: the blocks cover all windows of all tasks, and `FactorKernel::forward` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (rows.tasks * rows.units, rows.unit, rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let mut da = vec![T::zero(); kernel.condition.attended.len()];
        let mut dscores = vec![T::zero(); kernel.condition.scores.len()];
        let sums = {
            let out = [&mut da, &mut dscores].map(|v| Parts::of(v));
            let join = |sums: &mut Sums<T>, other: Sums<T>| {
                sums.norm.add(&other.norm);
                sums.a.add(&other.a);
            };
            kernel.rows.blocks().sum(|| kernel.sums(), |sums, block| kernel.backward(&du, block, &out, sums), join)
        };
        grads.give_values(&self.condition.attended, da)?;
        grads.give_values(&self.condition.scores, dscores)?;
        sums.a.give(&self.a, grads)?;
        sums.norm.give(&self.norm, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    fn sums(&self) -> Sums<T> {
        Sums {
            norm: self.norm.sums(),
            a: self.a.sums(),
            buffers: Buffers::default(),
            dnormed: Vec::new(),
            dconditioned: Vec::new(),
        }
    }

    /// The gradients of one block of windows, task by task.
    fn backward(&self, du: &[T], block: Range<usize>, out: &[Parts<T>; 2], sums: &mut Sums<T>) {
        let (n, c) = (self.condition.n, self.condition.c);
        let Sums { norm, a, buffers, dnormed, dconditioned } = sums;
        for t in 0..self.rows.tasks {
            self.normed(&block, t, buffers);
            resize(dnormed, buffers.normed.len());
            let du = &du[of_width(&self.rows.of(t, &block), self.a.out)];
            self.a.backward(t, &buffers.normed, du, T::one(), dnormed, a);
            zeroed(dconditioned, dnormed.len());
            self.norm.backward(&buffers.conditioned, dnormed, dconditioned, norm);
            let Buffers { gates, dgates, .. } = buffers;
            for (w, dy) in block.clone().zip(dconditioned.chunks_exact(n * c)) {
                // SAFETY: `Blocks` puts each window into one block, so that no other thread works on it.
                unsafe { self.condition.backward((w, t), T::one(), dy, [gates, dgates], out.each_ref()) };
            }
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
        let inputs = [
            normal(1, &[3, 5, 4])?,
            normal(2, &[3, 2, 4, 5])?,
            normal(3, &[4])?,
            normal(4, &[4])?,
            normal(5, &[2, 4])?,
            normal(6, &[2, 4])?,
        ];
        for inputs in [&inputs[..5], &inputs] {
            let step = |v: &[Tensor]| {
                let condition = TaskCondition { attended: v[0].clone(), scores: v[1].clone(), tasks: 2 };
                conditioned_down(&condition, &LayerNorm::new(v[2].clone(), v[3].clone()), &Factor::of(&v[4..]))
            };
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.iter().collect::<Vec<_>>(), step)?;
        }
        Ok(())
    }
}
