//! A norm and the thin product that follows it on a task's path.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use crate::ops::cpu::blocks::Blocks;
use crate::ops::cpu::both_ways::BothWays;
use crate::ops::cpu::buffers::resize;
use crate::ops::cpu::float::Real;
use crate::ops::cpu::parts::{Fresh, Parts};
use crate::ops::cpu::product::{Matrix, add_product, product};
use crate::ops::cpu::simd;
use crate::ops::cpu::slices::{Values, values};
use crate::ops::graph::{CpuKernel, Gradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel};
use crate::ops::linear;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// `u = A norm(x)`: `[b, N, C]` to `[b, N, r]`; the normed tokens are not kept.
///
/// # Errors
/// Tensors whose shapes or float types do not fit.
pub fn norm_down(x: &Tensor, norm: &LayerNorm, a: &Tensor) -> Result<Tensor> {
    let step = NormDown { x: x.clone(), norm: norm.clone(), a: a.clone() };
    only(apply(step)?)
}

#[derive(Clone)]
struct NormDown {
    x: Tensor,
    norm: LayerNorm,
    a: Tensor,
}

struct Kernel<'a, T: Real> {
    x: Values<'a, T>,
    norm: NormKernel<'a, T>,
    a: BothWays<'a, T>,
    blocks: Blocks,
    c: usize,
    rank: usize,
}

impl NormDown {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (rank, c) = self.a.dims2()?;
        let blocks = Blocks::of(self.x.elem_count() / c, 1);
        Ok(Kernel { x: values(&self.x)?, norm: self.norm.kernel()?, a: BothWays::lend(&self.a)?, blocks, c, rank })
    }
}

impl Step for NormDown {
    fn name(&self) -> &'static str {
        "norm-down"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, norm: self.norm.map(f)?, a: f(&self.a)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([_, _, c], [rank, _]) = (shapes.sizes("x", &self.x)?, shapes.sizes("A", &self.a)?);
        self.norm.check(shapes, c)?;
        shapes.expect("A", &self.a, &[rank, c])
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        Ok(vec![linear(&self.norm.forward(&self.x)?, &self.a, None)?])
    }
}

impl<T: Real> CpuKernel<T> for NormDown {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let (b, n, c) = self.x.dims3()?;
        let rank = kernel.rank;
        let mut u = Fresh::of(b * n * rank);
        let out = u.parts();
        kernel.blocks.for_each(Vec::new, |normed, block| {
            resize(normed, block.len() * c);
            kernel.norm.forward(&kernel.x[block.start * c..block.end * c], normed);
            // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
            let out = unsafe { out.at(block.start * rank, block.len() * rank) };
            product(out, rank, Matrix::rows(normed, c), kernel.a.t(), T::one());
        });
        // SAFETY: the blocks cover all rows, and `product` writes each.
        let u = unsafe { u.written() };
        Ok((vec![Output::new(u, (b, n, rank))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
        let Some(Some(du)) = outputs.first() else { return Ok(()) };
        let (kernel, du) = (self.kernel::<T>()?, values::<T>(du)?);
        let Kernel { c, rank, .. } = kernel;
        let mut dx = vec![T::zero(); self.x.elem_count()];
        let out = Parts::of(&mut dx);
        let start = || (kernel.norm.sums(), vec![T::zero(); kernel.a.len()], Vec::new(), Vec::new());
        let (norm, da, ..) = kernel.blocks.sum(
            start,
            |(norm, da, normed, dnormed), block| {
                let (x, du) = (&kernel.x[block.start * c..block.end * c], &du[block.start * rank..block.end * rank]);
                resize(normed, x.len());
                kernel.norm.forward(x, normed);
                let du = Matrix::rows(du, rank);
                add_product(da, c, du.t(), Matrix::rows(normed, c), T::one());
                resize(dnormed, x.len());
                product(dnormed, c, du, kernel.a.matrix(), T::one());
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                kernel.norm.backward(x, dnormed, unsafe { out.at(block.start * c, block.len() * c) }, norm);
            },
            |sums, other| {
                sums.0.add(&other.0);
                simd::add(&mut sums.1, &other.1);
            },
        );
        grads.give_values(&self.x, dx)?;
        grads.give_values(&self.a, da)?;
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
        let inputs = [normal(1, &[2, 5, 4])?, normal(2, &[4])?, normal(3, &[4])?, normal(4, &[2, 4])?];
        let norm = |v: &[Tensor]| LayerNorm::new(v[1].clone(), v[2].clone());
        let [fused, composed] = Definition::ALL.map(|by| by.run(|| norm_down(&inputs[0], &norm(&inputs), &inputs[3])));
        close(&fused?, &composed?, 1e-12)?;
        check(&inputs.each_ref(), |v| norm_down(&v[0], &norm(v), &v[3]))
    }
}
