//! The Dynamic Task Filter in one step: pooling, taps and convolution while a map is in the cache.
#![allow(unsafe_code)] // blocks of maps write their own parts of fresh memory

use super::depthwise::{depthwise_filter, filter_norm};
use super::map::MapSize;
use super::taps::{FilterKernel, FilterSums, FilterWeights, Normed};
use crate::ops::cpu::{Blocks, Fresh, Parts, Real, Values, resize, values};
use crate::ops::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use crate::ops::linear;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Each map's depth-wise convolution with the filter made from its own pooled context.
///
/// ```text
/// taps = FilterNorm(W pool(u) + b)
/// y    = u convolved with its taps, stride 1, zero padding k/2
/// ```
///
/// # Shapes
/// `u` `[b, h*w, r]` of maps of `size` (h, w), result the same.
///
/// # Errors
/// Tensors whose shapes or float types do not fit: tokens that are not a map of `size`, weights that are not for maps of r channels,
/// a kernel size that is even or below 3.
pub fn dynamic_filter(u: &Tensor, size: (usize, usize), weights: &FilterWeights) -> Result<Tensor> {
    let step = DynamicFilter { u: u.clone(), size, weights: weights.clone() };
    only(apply(step)?)
}

/// Each map's own filter, `FilterNorm(W pool(u) + b)`: `u` `[b, n, r]` to `[b, k*k, r]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; a kernel size that is even or below 3.
pub fn filter_taps(u: &Tensor, weights: &FilterWeights) -> Result<Tensor> {
    let shapes = Shapes::of("filter-taps", u)?;
    let [_, _, r] = shapes.sizes("maps", u)?;
    weights.check(shapes, r)?;
    let raw = linear(&u.mean(1)?, &weights.weight, Some(&weights.bias))?;
    filter_norm(&raw, &weights.scale, &weights.shift, weights.kernel_size)
}

#[derive(Clone)]
struct DynamicFilter {
    u: Tensor,
    size: (usize, usize),
    weights: FilterWeights,
}

struct Kernel<'a, T: Real> {
    u: Values<'a, T>,
    filter: FilterKernel<T>,
    map: MapSize,
    blocks: Blocks,
}

impl DynamicFilter {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let (maps, _, r) = self.u.dims3()?;
        let map = MapSize::new(self.size, r, self.weights.kernel_size)?;
        let blocks = Blocks::of_maps(maps, map.len());
        Ok(Kernel { u: values(&self.u)?, filter: FilterKernel::new(&self.weights)?, map, blocks })
    }
}

/// Sums of gradients over blocks, and what a thread reuses from block to block.
struct Sums<T> {
    weights: FilterSums<T>,
    taps: Vec<T>,
    normed: Normed<T>,
    dtaps: Vec<T>,
    dpooled: Vec<T>,
}

impl Step for DynamicFilter {
    fn name(&self) -> &'static str {
        "dynamic-filter"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { u: f(&self.u)?, weights: self.weights.map(f)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([maps, _, r], tokens) = (shapes.sizes("maps", &self.u)?, shapes.tokens(self.size)?);
        shapes.expect("maps", &self.u, &[maps, tokens, r])?;
        self.weights.check(shapes, r)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let ((b, _, r), (h, w)) = (self.u.dims3()?, self.size);
        let filtered = depthwise_filter(&self.u.reshape((b, h, w, r))?, &filter_taps(&self.u, &self.weights)?)?;
        Ok(vec![filtered.reshape(self.u.shape())?])
    }
}

impl<T: Real> CpuKernel<T> for DynamicFilter {
    /// Each map's pooled context.
    type Saved = Vec<T>;

    fn forward(&self, _: Keep) -> Result<Passed<Vec<T>>> {
        let kernel = self.kernel::<T>()?;
        let mut pooled = vec![T::zero(); kernel.u.len() / kernel.map.pixels()];
        let (contexts, mut y) = (Parts::of(&mut pooled), Fresh::of(kernel.u.len()));
        let out = y.parts();
        kernel.blocks.for_each(Vec::new, |taps, block| kernel.forward(block, &contexts, taps, &out));
        // SAFETY: the blocks cover all maps, and `forward` writes those of its block.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, self.u.shape())], Some(pooled)))
    }

    fn backward(&self, pooled: Vec<T>, outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (kernel, dy) = (self.kernel::<T>()?, values::<T>(dy)?);
        let start = || Sums {
            weights: kernel.filter.sums(),
            taps: Vec::new(),
            normed: Normed::default(),
            dtaps: Vec::new(),
            dpooled: Vec::new(),
        };
        let mut du = Fresh::of(kernel.u.len());
        let out = du.parts();
        let add = |sums: &mut Sums<T>, block| kernel.backward(&dy, &pooled, block, sums, &out);
        let sums = kernel.blocks.sum(start, add, |sums, other| sums.weights.add(&other.weights));
        // SAFETY: the blocks cover all maps, and `backward` writes those of its block.
        let du = unsafe { du.written() };
        grads.give_values(&self.u, du)?;
        sums.weights.give(&self.weights, grads)
    }
}

impl<T: Real> Kernel<'_, T> {
    fn of_map<'a>(&self, i: usize, values: &'a [T]) -> &'a [T] {
        &values[i * self.map.len()..][..self.map.len()]
    }

    /// One block of maps: their contexts, their filters at once, and each map's convolution.
    fn forward(&self, block: Range<usize>, pooled: &Parts<T>, taps: &mut Vec<T>, y: &Parts<MaybeUninit<T>>) {
        let (len, r) = (self.map.len(), self.map.channels());
        // SAFETY: `Blocks` puts each map into one block, so that no other part has these places.
        let pooled = unsafe { pooled.at(block.start * r, block.len() * r) };
        for (i, mean) in block.clone().zip(pooled.chunks_exact_mut(r)) {
            self.map.pool(self.of_map(i, &self.u), mean);
        }
        self.filter.taps(pooled, taps);
        for (i, taps) in block.zip(taps.chunks_exact(self.map.taps_len())) {
            // SAFETY: `Blocks` puts each map into one block, so that no other part has these places.
            self.map.convolve(self.of_map(i, &self.u), taps, unsafe { y.at(i * len, len) });
        }
    }

    /// The gradients of one block of maps: by way of the convolution, and by way of the pooled contexts.
    fn backward(&self, dy: &[T], pooled: &[T], block: Range<usize>, sums: &mut Sums<T>, du: &Parts<MaybeUninit<T>>) {
        let (len, taps_len, r) = (self.map.len(), self.map.taps_len(), self.map.channels());
        let Sums { weights, taps, normed, dtaps, dpooled } = sums;
        let pooled = &pooled[block.start * r..block.end * r];
        self.filter.taps_and_normed(pooled, taps, normed);
        resize(dtaps, taps.len());
        for (i, dtaps) in block.clone().zip(dtaps.chunks_exact_mut(taps_len)) {
            self.map.tap_gradients(self.of_map(i, &self.u), self.of_map(i, dy), dtaps);
        }
        self.filter.backward_taps(pooled, normed, dtaps, dpooled, weights);
        let count = T::of(self.map.pixels() as f64);
        dpooled.iter_mut().for_each(|d| *d /= count);
        for ((i, taps), dmean) in block.zip(taps.chunks_exact(taps_len)).zip(dpooled.chunks_exact(r)) {
            // SAFETY: `Blocks` puts each map into one block, so that no other part has these places.
            self.map.convolve_backward(self.of_map(i, dy), taps, Some(dmean), unsafe { du.at(i * len, len) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    /// Maps of h, w and r, then the weights of their filter.
    fn inputs(b: usize, [h, w, r]: [usize; 3], kernel_size: usize) -> Result<[Tensor; 5]> {
        let n = r * kernel_size * kernel_size;
        Ok([normal(1, &[b, h * w, r])?, normal(2, &[n, r])?, normal(3, &[n])?, normal(4, &[n])?, normal(5, &[n])?])
    }

    fn weights(inputs: &[Tensor], kernel_size: usize) -> FilterWeights {
        let [weight, bias, scale, shift] = [1, 2, 3, 4].map(|i| inputs[i].clone());
        FilterWeights { weight, bias, scale, shift, kernel_size }
    }

    #[test]
    fn equals_its_composed_definition() -> Result<()> {
        let shapes = [(3, [5, 7, 3]), (3, [1, 1, 2]), (3, [1, 2, 9]), (5, [3, 4, 17]), (7, [2, 9, 2]), (3, [7, 7, 16])];
        for (kernel_size, size) in shapes.into_iter().chain([(3, [90, 31, 27])]) {
            let inputs = inputs(11, size, kernel_size)?;
            let (weights, size) = (weights(&inputs, kernel_size), (size[0], size[1]));
            let [fused, composed] = Definition::ALL.map(|by| by.run(|| dynamic_filter(&inputs[0], size, &weights)));
            close(&fused?, &composed?, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_the_maps_and_of_every_weight() -> Result<()> {
        let shapes = [(3, [3, 5, 2]), (3, [1, 1, 2]), (3, [1, 2, 2]), (3, [2, 1, 2]), (5, [3, 2, 2]), (7, [2, 4, 1])];
        for (kernel_size, size) in shapes {
            let inputs = inputs(3, size, kernel_size)?;
            check(&inputs.each_ref(), |v| dynamic_filter(&v[0], (size[0], size[1]), &weights(v, kernel_size)))?;
        }
        Ok(())
    }

    /// Values and gradients, those of many channels and bands as well.
    #[test]
    fn the_same_bits_whatever_the_threads() -> Result<()> {
        let run = |threads: usize| -> Result<Vec<Vec<f64>>> {
            let step = || -> Result<Vec<Vec<f64>>> {
                let mut all = Vec::new();
                for (b, size) in [(40, [7, 7, 16]), (2, [70, 40, 24])] {
                    let vars = inputs(b, size, 3)?;
                    let vars = vars.iter().map(candle_core::Var::from_tensor).collect::<Result<Vec<_>>>()?;
                    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
                    let y = dynamic_filter(&tensors[0], (size[0], size[1]), &weights(&tensors, 3))?;
                    let grads = y.sqr()?.sum_all()?.backward()?;
                    all.push(y.flatten_all()?.to_vec1()?);
                    for var in &vars {
                        all.push(grads.get(var).unwrap().flatten_all()?.to_vec1()?);
                    }
                }
                Ok(all)
            };
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(step)
        };
        assert_eq!(run(1)?, run(3)?);
        Ok(())
    }

    #[test]
    fn gradients_in_f64_are_those_of_the_composed_definition() -> Result<()> {
        let (size, kernel_size) = ([66, 40, 27], 3);
        let vars =
            inputs(2, size, kernel_size)?.iter().map(candle_core::Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let (weights, size) = (weights(&tensors, kernel_size), (size[0], size[1]));
        let gradients =
            |by: Definition| by.run(|| dynamic_filter(&tensors[0], size, &weights)?.sqr()?.sum_all()?.backward());
        let (got, want) = (gradients(Definition::Fused)?, gradients(Definition::Composed)?);
        for var in &vars {
            close(got.get(var).unwrap(), want.get(var).unwrap(), 1e-10)?;
        }
        Ok(())
    }

    #[test]
    fn tokens_that_are_no_map_are_refused() -> Result<()> {
        let inputs = inputs(1, [2, 3, 2], 3)?;
        assert!(dynamic_filter(&inputs[0], (3, 3), &weights(&inputs, 3)).is_err());
        assert!(dynamic_filter(&inputs[0], (2, 3), &weights(&inputs, 5)).is_err());
        Ok(())
    }
}
