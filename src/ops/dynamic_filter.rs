//! The Dynamic Task Filter in one step: pooling, taps and convolution while a map is in the cache.
#![allow(unsafe_code)] // blocks of maps write their own parts of fresh memory

use super::blocks::Blocks;
use super::cpu::{Fresh, Parts, Real, Values, by_float, is_fused, values};
use super::filter::{depthwise_filter, filter_norm};
use super::filter_map::MapSize;
use super::filter_taps::{FilterKernel, FilterSums, FilterWeights, Normed};
use super::linear;
use super::low_rank::resize;
use super::segment::{self, GradientCheckpointing, Gradients, Keep, Output, Passed, Segment};
use super::shapes::Shapes;
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
/// Weights that are not for maps of r channels, tokens that are not a map of `size`.
pub fn dynamic_filter(u: &Tensor, size: (usize, usize), weights: &FilterWeights) -> Result<Tensor> {
    let (_, n, r) = u.dims3()?;
    if n != size.0 * size.1 || weights.weight.dims() != [r * weights.kernel * weights.kernel, r] {
        candle_core::bail!(
            "a dynamic filter of weight {:?} and kernel {} for maps {size:?} as tokens {:?}",
            weights.weight.dims(),
            weights.kernel,
            u.dims()
        )
    }
    if !is_fused(u) || n == 0 {
        return composed(u, size, weights);
    }
    let map = MapSize { h: size.0, w: size.1, r, kernel: weights.kernel };
    let step = DynamicFilter { u: u.contiguous()?, weights: weights.contiguous()?, map };
    segment::only(by_float!(u.dtype(), run(step))?)
}

/// Each map's own filter, `FilterNorm(W pool(u) + b)`: `u` `[b, n, r]` to `[b, k*k, r]`.
///
/// # Errors
/// Tensors whose shapes do not fit.
pub fn filter_taps(u: &Tensor, weights: &FilterWeights) -> Result<Tensor> {
    let raw = linear(&u.mean(1)?, &weights.weight, Some(&weights.bias))?;
    filter_norm(&raw, &weights.scale, &weights.shift, weights.kernel)
}

fn composed(u: &Tensor, (h, w): (usize, usize), weights: &FilterWeights) -> Result<Tensor> {
    let (b, _, r) = u.dims3()?;
    depthwise_filter(&u.reshape((b, h, w, r))?, &filter_taps(u, weights)?)?.reshape(u.shape())
}

fn run<T: Real>(step: DynamicFilter) -> Result<Vec<Tensor>> {
    segment::run::<T, _>(step, GradientCheckpointing::Off)
}

struct DynamicFilter {
    u: Tensor,
    weights: FilterWeights,
    map: MapSize,
}

struct Kernel<'a, T: Real> {
    u: Values<'a, T>,
    filter: FilterKernel<T>,
    map: MapSize,
    blocks: Blocks,
}

impl DynamicFilter {
    fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let blocks = Blocks::of_maps(self.u.dim(0)?, self.map.len());
        Ok(Kernel { u: values(&self.u)?, filter: FilterKernel::new(&self.weights)?, map: self.map, blocks })
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

impl<T: Real> Segment<T> for DynamicFilter {
    /// Each map's pooled context.
    type Saved = Vec<T>;

    fn name(&self) -> &'static str {
        "dynamic-filter"
    }

    fn inputs(&self) -> Vec<&Tensor> {
        let [weight, bias, scale, shift] = self.weights.tensors();
        vec![&self.u, weight, bias, scale, shift]
    }

    fn check(&self) -> Result<()> {
        let (shapes, (b, _, r)) = (Shapes("dynamic-filter"), self.u.dims3()?);
        let taps = r * self.map.kernel * self.map.kernel;
        shapes.expect("maps", &self.u, &[b, self.map.h * self.map.w, self.map.r])?;
        shapes.expect("a weight", &self.weights.weight, &[taps, r])?;
        let [_, vectors @ ..] = self.weights.tensors();
        vectors.into_iter().try_for_each(|vector| shapes.expect("a bias, scale and shift", vector, &[taps]))
    }

    fn forward(&self, _: Keep) -> Result<Passed<T, Vec<T>>> {
        let kernel = self.kernel::<T>()?;
        let mut pooled = vec![T::zero(); kernel.u.len() / (self.map.h * self.map.w)];
        let (contexts, mut y) = (Parts::of(&mut pooled), Fresh::of(kernel.u.len()));
        let out = y.parts();
        kernel.blocks.for_each(Vec::new, |taps, block| kernel.forward(block, &contexts, taps, &out));
        // SAFETY: the blocks cover all maps, and `forward` writes those of its block.
        let y = unsafe { y.written() };
        Ok((vec![Output::new(y, self.u.shape())], Some(pooled)))
    }

    fn backward(&self, pooled: Vec<T>, outputs: Vec<Option<Tensor>>, grads: &mut Gradients) -> Result<()> {
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
        let (len, r) = (self.map.len(), self.map.r);
        // SAFETY: each map is in one block.
        let pooled = unsafe { pooled.at(block.start * r, block.len() * r) };
        for (i, mean) in block.clone().zip(pooled.chunks_exact_mut(r)) {
            self.map.pool(self.of_map(i, &self.u), mean);
        }
        self.filter.taps(pooled, taps);
        for (i, taps) in block.zip(taps.chunks_exact(self.map.taps_len())) {
            // SAFETY: each map is in one block.
            self.map.convolve(self.of_map(i, &self.u), taps, unsafe { y.at(i * len, len) });
        }
    }

    /// The gradients of one block of maps: by way of the convolution, and by way of the pooled contexts.
    fn backward(&self, dy: &[T], pooled: &[T], block: Range<usize>, sums: &mut Sums<T>, du: &Parts<MaybeUninit<T>>) {
        let (len, taps_len, r) = (self.map.len(), self.map.taps_len(), self.map.r);
        let Sums { weights, taps, normed, dtaps, dpooled } = sums;
        let pooled = &pooled[block.start * r..block.end * r];
        self.filter.taps_and_normed(pooled, taps, normed);
        resize(dtaps, taps.len());
        for (i, dtaps) in block.clone().zip(dtaps.chunks_exact_mut(taps_len)) {
            self.map.tap_gradients(self.of_map(i, &self.u), self.of_map(i, dy), dtaps);
        }
        self.filter.backward_taps(pooled, normed, dtaps, dpooled, weights);
        let count = T::of((self.map.h * self.map.w) as f64);
        dpooled.iter_mut().for_each(|d| *d /= count);
        for ((i, taps), dmean) in block.zip(taps.chunks_exact(taps_len)).zip(dpooled.chunks_exact(r)) {
            // SAFETY: each map is in one block.
            self.map.convolve_backward(self.of_map(i, dy), taps, Some(dmean), unsafe { du.at(i * len, len) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    /// Maps of h, w and r, then the weights of their filter.
    fn inputs(b: usize, [h, w, r]: [usize; 3], kernel: usize) -> Result<[Tensor; 5]> {
        let n = r * kernel * kernel;
        Ok([normal(1, &[b, h * w, r])?, normal(2, &[n, r])?, normal(3, &[n])?, normal(4, &[n])?, normal(5, &[n])?])
    }

    fn weights(inputs: &[Tensor], kernel: usize) -> FilterWeights {
        let [weight, bias, scale, shift] = [1, 2, 3, 4].map(|i| inputs[i].clone());
        FilterWeights { weight, bias, scale, shift, kernel }
    }

    #[test]
    fn equals_its_composed_definition() -> Result<()> {
        let shapes = [(3, [5, 7, 3]), (3, [1, 1, 2]), (3, [1, 2, 9]), (5, [3, 4, 17]), (7, [2, 9, 2]), (3, [7, 7, 16])];
        for (kernel, size) in shapes.into_iter().chain([(3, [90, 31, 27])]) {
            let inputs = inputs(11, size, kernel)?;
            let (weights, size) = (weights(&inputs, kernel), (size[0], size[1]));
            let want = composed(&inputs[0], size, &weights)?;
            close(&dynamic_filter(&inputs[0], size, &weights)?, &want, 1e-12)?;
        }
        Ok(())
    }

    #[test]
    fn gradients_of_the_maps_and_of_every_weight() -> Result<()> {
        let shapes = [(3, [3, 5, 2]), (3, [1, 1, 2]), (3, [1, 2, 2]), (3, [2, 1, 2]), (5, [3, 2, 2]), (7, [2, 4, 1])];
        for (kernel, size) in shapes {
            let inputs = inputs(3, size, kernel)?;
            check(&inputs.each_ref(), |v| dynamic_filter(&v[0], (size[0], size[1]), &weights(v, kernel)))?;
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
        let (size, kernel) = ([66, 40, 27], 3);
        let vars = inputs(2, size, kernel)?.iter().map(candle_core::Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let (weights, size) = (weights(&tensors, kernel), (size[0], size[1]));
        let got = dynamic_filter(&tensors[0], size, &weights)?.sqr()?.sum_all()?.backward()?;
        let want = composed(&tensors[0], size, &weights)?.sqr()?.sum_all()?.backward()?;
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
