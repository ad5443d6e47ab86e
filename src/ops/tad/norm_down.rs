//! A norm and the thin product that follows it on a task's path.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::factor::{Factor, FactorKernel, FactorSums};
use super::rows::{TaskRows, of_width};
use crate::ops::cpu::{Fresh, Parts, Real, Values, resize, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel, NormSums};
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// `u_t = A_t norm(x_t)` for each task t: `[T*b, N, C]`, the tasks leading, to `[T*b, N, r]`; the normed tokens are not kept.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn norm_down(x: &Tensor, norm: &LayerNorm, a: &Factor) -> Result<Tensor> {
    let step = NormDown { x: x.clone(), norm: norm.clone(), a: a.clone() };
    only(apply(step)?)
}

#[derive(Clone)]
struct NormDown {
    x: Tensor,
    norm: LayerNorm,
    a: Factor,
}

struct Kernel<'a, T: Real> {
    x: Values<'a, T>,
    norm: NormKernel<'a, T>,
    a: FactorKernel<'a, T>,
    rows: TaskRows,
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    norm: NormSums<T>,
    a: FactorSums<T>,
    normed: Vec<T>,
    dnormed: Vec<T>,
}

impl NormDown {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (x, a, tasks) = (values(&self.x)?, self.a.kernel()?, self.a.count());
        let rows = TaskRows { tasks, units: x.len() / a.n_in / tasks, unit: 1 }; // with one factor, all are of one task
        Ok(Kernel { x, norm: self.norm.kernel()?, a, rows })
    }
}

impl Step for NormDown {
    fn name(&self) -> &'static str {
        "norm-down"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, norm: self.norm.map(f)?, a: self.a.map(f)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let [all, _, c] = shapes.sizes("x", &self.x)?;
        shapes.times("maps of all tasks", all, self.a.count())?;
        self.norm.check(shapes, c)?;
        self.a.check(shapes, "A", self.a.count(), None, c).map(drop)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.a.forward(&self.norm.forward(&self.x)?)?])
    }
}

impl<T: Real> CpuKernel<T> for NormDown {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let ((b, n, c), rows, rank) = (self.x.dims3()?, kernel.rows, kernel.a.out);
        let mut u = Fresh::of(rows.len() * rank);
        let out = u.parts();
        rows.blocks().for_each(Vec::new, |normed, block| {
            for t in 0..rows.tasks {
                let of_task = rows.of(t, &block);
                resize(normed, of_task.len() * c);
                kernel.norm.forward(&kernel.x[of_width(&of_task, c)], normed);
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                let out = unsafe { out.at(of_task.start * rank, of_task.len() * rank) };
                kernel.a.forward(t, normed, T::one(), out);
            }
        });
        // SAFETY: the blocks cover all rows of all tasks, and `FactorKernel::forward` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (b, n, rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let mut dx = vec![T::zero(); self.x.elem_count()];
        let sums = {
            let dx = Parts::of(&mut dx);
            let start =
                || Sums { norm: kernel.norm.sums(), a: kernel.a.sums(), normed: Vec::new(), dnormed: Vec::new() };
            let join = |sums: &mut Sums<T>, other: Sums<T>| {
                sums.norm.add(&other.norm);
                sums.a.add(&other.a);
            };
            kernel.rows.blocks().sum(start, |sums, block| kernel.backward(&du, block, &dx, sums), join)
        };
        grads.give_values(&self.x, dx)?;
        sums.a.give(&self.a, grads)?;
        sums.norm.give(&self.norm, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The gradients of one block of rows, task by task.
    fn backward(&self, du: &[T], block: Range<usize>, dx: &Parts<T>, sums: &mut Sums<T>) {
        let Sums { norm, a, normed, dnormed } = sums;
        for t in 0..self.rows.tasks {
            let rows = self.rows.of(t, &block);
            let place = of_width(&rows, self.a.n_in);
            let x = &self.x[place.clone()];
            resize(normed, x.len());
            self.norm.forward(x, normed);
            resize(dnormed, x.len());
            self.a.backward(t, normed, &du[of_width(&rows, self.a.out)], T::one(), dnormed, a);
            // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
            self.norm.backward(x, dnormed, unsafe { dx.at(place.start, place.len()) }, norm);
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
        let inputs =
            [normal(1, &[4, 5, 4])?, normal(2, &[4])?, normal(3, &[4])?, normal(4, &[2, 4])?, normal(5, &[2, 4])?];
        for inputs in [&inputs[..4], &inputs] {
            let step =
                |v: &[Tensor]| norm_down(&v[0], &LayerNorm::new(v[1].clone(), v[2].clone()), &Factor::of(&v[3..]));
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| step(inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.iter().collect::<Vec<_>>(), step)?;
        }
        Ok(())
    }
}
