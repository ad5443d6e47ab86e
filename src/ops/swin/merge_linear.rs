//! Patch merging and the linear map that follows it.
#![allow(unsafe_code)] // blocks of rows write their own parts of the outputs

use super::patches::merge_patches;
use crate::ops::cpu::simd;
use crate::ops::cpu::{Blocks, BothWays, Fresh, Matrix, Real, Values, add_product, product, resize, values, zeroed};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::layer_norm::{LayerNorm, NormKernel};
use crate::ops::linear;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::ops::Range;

/// Patch merging and the linear map after it: `y = W norm(2 x 2 neighbours)`.
///
/// The neighbours are in the order (0,0), (1,0), (0,1), (1,1) of (row, column), and 0 beyond odd maps; neither they nor the normed ones
/// are kept.
///
/// # Shapes
/// `x` `[B, H*W, C]` of maps of `size`, the norm's weights `[4C]`, `weight` `[out, 4C]`, result `[B, ceil(H/2)*ceil(W/2), out]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; the weight may be stored in another than x's.
pub fn merge_linear(x: &Tensor, size: (usize, usize), norm: &LayerNorm, weight: &Tensor) -> Result<Tensor> {
    let step = MergeLinear { x: x.clone(), size, norm: norm.clone(), weight: weight.clone() };
    only(apply(step)?)
}

#[derive(Clone)]
struct MergeLinear {
    x: Tensor,
    size: (usize, usize),
    norm: LayerNorm,
    weight: Tensor,
}

struct Kernel<'a, T: Real> {
    x: Values<'a, T>,
    norm: NormKernel<'a, T>,
    weight: BothWays<'a, T>,
    blocks: Blocks,
    size: (usize, usize),
    /// The merged map's size.
    merged: (usize, usize),
    images: usize,
    c: usize,
    out: usize,
}

impl MergeLinear {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (images, _, c) = self.x.dims3()?;
        let merged = (self.size.0.div_ceil(2), self.size.1.div_ceil(2));
        Ok(Kernel {
            x: values(&self.x)?,
            norm: self.norm.kernel()?,
            weight: BothWays::lend(&self.weight)?,
            blocks: Blocks::of(images * merged.0, merged.1), // whole rows of the merged map
            size: self.size,
            merged,
            images,
            c,
            out: self.weight.dim(0)?,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// Each patch of a block of the merged map's rows: its place among the neighbours, four a token, and its own among all images'.
    fn neighbours(&self, block: &Range<usize>) -> impl Iterator<Item = (usize, Option<usize>)> {
        let ((h, w), (rows, columns)) = (self.size, self.merged);
        block.clone().enumerate().flat_map(move |(i, row)| {
            let (image, top) = (row / rows, row % rows * 2);
            (0..4 * columns).map(move |j| {
                // Column by column: (0,0), (1,0), (0,1), (1,1) of (row, column).
                let (y, x) = (top + j % 2, j / 4 * 2 + j % 4 / 2);
                (i * 4 * columns + j, (y < h && x < w).then(|| image * h * w + y * w + x))
            })
        })
    }

    /// The neighbours of a block, 0 in the padding, and their norm.
    fn normed(&self, block: &Range<usize>, gathered: &mut Vec<T>, normed: &mut Vec<T>) {
        let c = self.c;
        resize(gathered, block.len() * self.merged.1 * 4 * c);
        for (at, from) in self.neighbours(block) {
            let row = &mut gathered[at * c..(at + 1) * c];
            match from {
                Some(from) => row.copy_from_slice(&self.x[from * c..(from + 1) * c]),
                None => row.fill(T::zero()),
            }
        }
        resize(normed, gathered.len());
        self.norm.forward(gathered, normed);
    }

    /// A block's rows in the result.
    fn rows(&self, block: &Range<usize>) -> Range<usize> {
        let row = self.merged.1 * self.out;
        block.start * row..block.end * row
    }
}

impl Step for MergeLinear {
    fn name(&self) -> &'static str {
        "merge-linear"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, norm: self.norm.map(f)?, weight: f(&self.weight)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([images, _, c], tokens) = (shapes.sizes("tokens", &self.x)?, shapes.tokens(self.size)?);
        shapes.expect("tokens", &self.x, &[images, tokens, c])?;
        self.norm.check(shapes, 4 * c)?;
        shapes.matrix("a weight", &self.weight, 4 * c).map(drop)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let merged = merge_patches(&self.x, self.size)?.0;
        Ok(vec![linear(&self.norm.forward(&merged)?, &self.weight, None)?])
    }
}

impl<T: Real> CpuKernel<T> for MergeLinear {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let kernel = self.kernel::<T>()?;
        let Kernel { images, merged, c, out: width, .. } = kernel;
        let mut y = Fresh::of(images * merged.0 * merged.1 * width);
        let out = y.parts();
        kernel.blocks.for_each(Default::default, |(gathered, normed): &mut (Vec<T>, Vec<T>), block| {
            kernel.normed(&block, gathered, normed);
            let place = kernel.rows(&block);
            // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
            let out = unsafe { out.at(place.start, place.len()) };
            product(out, width, Matrix::rows(normed, 4 * c), kernel.weight.t(), T::one());
        });
        // SAFETY: the blocks cover all rows, and `product` writes each.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, (images, merged.0 * merged.1, width))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dy) = (self.kernel::<T>()?, values::<T>(dy)?);
        let (c, trains) = (kernel.c, self.weight.track_op());
        let mut dx = Fresh::of(kernel.x.len());
        let out = dx.parts();
        let start = || {
            let weight = vec![T::zero(); if trains { kernel.weight.len() } else { 0 }];
            (kernel.norm.sums(), weight, [Vec::new(), Vec::new(), Vec::new(), Vec::new()])
        };
        let (norm, dweight, _) = kernel.blocks.sum(
            start,
            |(norm, dweight, [gathered, normed, dnormed, dgathered]), block| {
                kernel.normed(&block, gathered, normed);
                let dy = Matrix::rows(&dy[kernel.rows(&block)], kernel.out);
                if trains {
                    add_product(dweight, 4 * c, dy.t(), Matrix::rows(normed, 4 * c), T::one());
                }
                resize(dnormed, normed.len());
                product(dnormed, 4 * c, dy, kernel.weight.matrix(), T::one());
                zeroed(dgathered, dnormed.len());
                kernel.norm.backward(gathered, dnormed, dgathered, norm);
                for (at, to) in kernel.neighbours(&block) {
                    let Some(to) = to else { continue };
                    // SAFETY: `neighbours` has each patch once, at one token, and `Blocks` each row of tokens in one block.
                    unsafe { out.at(to * c, c) }.write_copy_of_slice(&dgathered[at * c..(at + 1) * c]);
                }
            },
            |sums, other| {
                sums.0.add(&other.0);
                simd::add(&mut sums.1, &other.1);
            },
        );
        // SAFETY: the blocks cover all tokens, `neighbours` of these all patches, and each was written by its copy.
        let dx = unsafe { dx.written() };
        grads.give_values(&self.x, dx)?;
        if trains {
            grads.give_values(&self.weight, dweight)?;
        }
        norm.give(&self.norm, grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients_on_even_and_odd_maps() -> Result<()> {
        for size in [(4, 6), (3, 5), (1, 1)] {
            let inputs =
                [normal(1, &[2, size.0 * size.1, 3])?, normal(2, &[12])?, normal(3, &[12])?, normal(4, &[5, 12])?];
            let norm = |v: &[Tensor]| LayerNorm::new(v[1].clone(), v[2].clone());
            let merged = |v: &[Tensor]| merge_linear(&v[0], size, &norm(v), &v[3]);
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| merged(&inputs)));
            close(&fused?, &composed?, 1e-12)?;
            check(&inputs.each_ref(), merged)?;
            check(&[&inputs[0]], |v| merge_linear(&v[0], size, &norm(&inputs), &inputs[3]))?;
        }
        Ok(())
    }
}
