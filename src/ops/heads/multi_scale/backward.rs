//! InputGradients: sums over all images first, then each image's.
#![allow(unsafe_code)] // blocks of rows write their own parts of the gradients

use super::kernel::{Image, Kernel, Layer, Rows, Scale, times_columns};
use super::resample::Then;
use super::{Moments, MultiScaleHead};
use crate::ops::batch_norm::MomentsOf;
use crate::ops::cpu::simd;
use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::cpu::{Matrix, Parts, Real, add_product, product, resize, values};
use crate::ops::graph::InputGradients;
use candle_core::{Result, Tensor, WithDType};
use std::ops::Range;

/// What both passes read: the layer that gives v, the hidden values less their mean over their deviation, and dy.
struct Given<'a, T> {
    layer: Layer<T>,
    /// `[B, n, h_0*w_0]`.
    dy: &'a [T],
}

/// Sums over all positions, d the gradient of normed values: what v and d make together.
struct Sums<T> {
    /// `Σ d`.
    d: Vec<T>,
    /// `Σ d v`.
    dv: Vec<T>,
    /// The output weight's gradient, `[n, H]`.
    out_weight: Vec<T>,
}

/// `dz = factor (d - mean - v slope)`: the norm's backward.
struct OfNorm<T> {
    factor: Vec<T>,
    mean: Vec<T>,
    slope: Vec<T>,
}

/// What the gradient of the hidden values leads to.
struct OfMaps<T> {
    /// Each map's.
    tokens: Vec<Vec<T>>,
    /// Each map's part of the hidden weight's, `[c, H]`.
    weights: Vec<Vec<T>>,
    /// The hidden bias's: nothing but rounding where the batch's own mean takes away what is added to all values.
    bias: Vec<T>,
}

/// What a thread reuses from block to block.
struct Scratch<T> {
    v: Rows<T>,
    d: Vec<T>,
    /// `Σ dz` of the finest scale's blocks so far.
    sum: Vec<T>,
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { v: Rows::default(), d: Vec::new(), sum: Vec::new() }
    }
}

impl MultiScaleHead {
    /// With v the hidden values less their mean over their deviation and d the gradient of the normed ones:
    /// `dz = w / sqrt(var + eps) (d - Σd / N - v Σdv / N)`, its sums absent where the moments are given.
    pub(super) fn gradients<T: Real>(
        &self,
        kernel: &Kernel<T>,
        moments: &Moments<T>,
        dy: &Tensor,
        grads: &mut InputGradients,
    ) -> Result<()> {
        let (scale, dy) = (kernel.scale_of(moments), values::<T>(dy)?);
        let given = Given { layer: kernel.folded(&moments.mean, &scale), dy: &dy };
        let sums = kernel.sums(&given);
        let factor: Vec<T> = scale.iter().zip(&*kernel.norm_weight).map(|(scale, weight)| *scale * *weight).collect();
        let share = match self.norm.moments {
            MomentsOf::Batch => T::of(kernel.count() as f64).recip(),
            MomentsOf::Given(_) => T::zero(),
        };
        let scaled = |sums: &[T]| sums.iter().map(|sum| *sum * share).collect();
        let norm = OfNorm { mean: scaled(&sums.d), slope: scaled(&sums.dv), factor };
        let maps = kernel.of_maps(&given, &norm);
        grads.give_values(&self.hidden.weight, kernel.joined(&maps.weights))?;
        grads.give_values(&self.hidden.bias, maps.bias)?;
        grads.give_values(&self.norm.weight, sums.dv)?;
        grads.give_values(&self.norm.bias, sums.d)?;
        grads.give_values(&self.output.weight, sums.out_weight)?;
        grads.give_values(&self.output.bias, kernel.output_bias(&dy))?;
        self.maps.iter().zip(maps.tokens).try_for_each(|(map, gradient)| grads.give_values(&map.tokens, gradient))
    }
}

impl<T: Real> Kernel<'_, T> {
    /// dy of some rows of an image: `[n, positions]`.
    fn dy<'a>(&self, given: &Given<'a, T>, image: usize, rows: &Range<usize>) -> Matrix<'a, T> {
        let (all, w) = (self.positions(), self.size.1);
        Matrix::part(&given.dy[image * self.outputs * all + rows.start * w..], self.outputs, rows.len() * w, all)
    }

    /// The gradient of ReLU's result in some rows of an image.
    fn of_relu(&self, image: &Image<T>, dy: Matrix<T>, d: &mut Vec<T>, len: usize) {
        resize(d, len);
        product(d, self.hidden, dy.t(), Matrix::rows(&image.out_weight, self.hidden), T::one());
    }

    fn sums(&self, given: &Given<T>) -> Sums<T> {
        let zeros = |len: usize| vec![T::zero(); len];
        let start = || Sums { d: zeros(self.hidden), dv: zeros(self.hidden), out_weight: zeros(self.out_weight.len()) };
        let join = |sums: &mut Sums<T>, more: Sums<T>| {
            simd::add(&mut sums.d, &more.d);
            simd::add(&mut sums.dv, &more.dv);
            simd::add(&mut sums.out_weight, &more.out_weight);
        };
        let mut total = start();
        for image in 0..self.images {
            let image = self.image(image, &given.layer);
            let (mut sums, _) = self.finest().blocks().sum(
                || (start(), Scratch::default()),
                |(sums, Scratch { v, d, .. }), rows| {
                    let dy = self.dy(given, image.i, &rows);
                    self.fill(&image, &rows, Then::Stay, v);
                    self.of_relu(&image, dy, d, v.z.len());
                    let [weight, bias] = [&*self.norm_weight, &*self.norm_bias];
                    add_sums(&mut sums.d, &mut sums.dv, &mut v.z, d, weight, bias);
                    let normed = Matrix::rows(&v.z, self.hidden);
                    add_product(&mut sums.out_weight, self.hidden, dy, normed, T::one());
                },
                |(sums, _), (more, _)| join(sums, more),
            );
            if let Some(factors) = &image.factors {
                sums.out_weight = times_columns(&sums.out_weight, factors);
            }
            join(&mut total, sums);
        }
        total
    }

    fn of_maps(&self, given: &Given<T>, norm: &OfNorm<T>) -> OfMaps<T> {
        let mut maps: Vec<_> = self.scales.iter().flat_map(|scale| &scale.maps).collect();
        maps.sort_by_key(|map| map.i);
        let mut grads = OfMaps {
            tokens: maps.iter().map(|map| vec![T::zero(); map.tokens.len()]).collect(),
            weights: maps.iter().map(|map| vec![T::zero(); map.c * self.hidden]).collect(),
            bias: vec![T::zero(); self.hidden],
        };
        let wide = |scale: &Scale<T>| vec![T::zero(); self.size.0 * scale.size.1 * self.hidden];
        let mut gathered: Vec<Vec<T>> = self.scales[1..].iter().map(wide).collect();
        for i in 0..self.images {
            self.of_finest(given, norm, &self.image(i, &given.layer), &mut gathered, &mut grads);
            for (scale, gathered) in self.scales[1..].iter().zip(&gathered) {
                self.of_coarse(scale, i, gathered, &mut grads);
            }
        }
        grads
    }

    /// The gradients of the finest maps, and what each coarser scale has from every row, at its own width: `[h_0, w_i, H]`.
    fn of_finest(
        &self,
        given: &Given<T>,
        norm: &OfNorm<T>,
        image: &Image<T>,
        gathered: &mut [Vec<T>],
        grads: &mut OfMaps<T>,
    ) {
        let (hidden, scales) = (self.hidden, &self.scales[1..]);
        let out: Vec<Parts<T>> = gathered.iter_mut().map(|all| Parts::of(all)).collect();
        let each = |Scratch { v, d, sum }: &mut Scratch<T>, rows: &Range<usize>| {
            self.fill(image, rows, Then::Stay, v);
            self.of_relu(image, self.dy(given, image.i, rows), d, v.z.len());
            resize(sum, hidden);
            to_hidden(d, sum, &v.z, [&*self.norm_weight, &*self.norm_bias], norm);
            for (scale, out) in scales.iter().zip(&out) {
                let width = scale.size.1 * hidden;
                for (y, d) in rows.clone().zip(d.chunks_exact(self.size.1 * hidden)) {
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    scale.resample.gather_columns(d, unsafe { out.at(y * width, width) }, hidden);
                }
            }
        };
        self.multiply_back(self.finest(), image.i, grads, each);
    }

    /// The gradients of a coarser scale's maps, from what [`Kernel::of_finest`] gathered.
    fn of_coarse(&self, scale: &Scale<T>, image: usize, gathered: &[T], grads: &mut OfMaps<T>) {
        let width = scale.size.1 * self.hidden;
        self.multiply_back(scale, image, grads, |Scratch { d, .. }, rows| {
            resize(d, rows.len() * width);
            for (y, d) in rows.clone().zip(d.chunks_exact_mut(width)) {
                scale.resample.gather_rows(y, gathered, d);
            }
        });
    }

    /// The gradients of a scale's maps and of their part of the weight, block by block of the scale's rows, whose hidden
    /// values' gradients `make` puts into `d`.
    fn multiply_back(
        &self,
        scale: &Scale<T>,
        image: usize,
        grads: &mut OfMaps<T>,
        make: impl Fn(&mut Scratch<T>, &Range<usize>) + Sync + Send,
    ) {
        let hidden = self.hidden;
        let mut tokens: Vec<Vec<T>> = scale.maps.iter().map(|map| std::mem::take(&mut grads.tokens[map.i])).collect();
        let out: Vec<Parts<T>> = tokens.iter_mut().map(|all| Parts::of(all)).collect();
        let start = || {
            let weights: Vec<Vec<T>> = scale.maps.iter().map(|map| vec![T::zero(); map.c * hidden]).collect();
            (weights, Scratch::default())
        };
        let (weights, Scratch { sum, .. }) = scale.blocks().sum(
            start,
            |(weights, scratch), rows| {
                make(scratch, &rows);
                let positions = scale.positions(image, &rows);
                let dz = Matrix::rows(&scratch.d, hidden);
                for ((map, dw), out) in scale.maps.iter().zip(weights).zip(&out) {
                    let tokens = Matrix::rows(map.rows(&positions), map.c);
                    add_product(dw, hidden, tokens.t(), dz, T::one());
                    // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                    let out = unsafe { out.at(positions.start * map.c, positions.len() * map.c) };
                    let weight = Matrix::part(&self.weight[map.column..], hidden, map.c, self.channels);
                    product(out, map.c, dz, weight, T::one());
                }
            },
            |(sums, scratch), (more, other)| {
                sums.iter_mut().zip(more).for_each(|(sums, more)| simd::add(sums, &more));
                simd::add(&mut scratch.sum, &other.sum);
            },
        );
        for ((map, tokens), dw) in scale.maps.iter().zip(tokens).zip(weights) {
            grads.tokens[map.i] = tokens;
            simd::add(&mut grads.weights[map.i], &dw);
        }
        simd::add(&mut grads.bias, &sum);
    }

    /// The hidden weight's gradient `[H, Σ c]` from each map's part.
    fn joined(&self, parts: &[Vec<T>]) -> Vec<T> {
        let all = parts.concat(); // [Σ c, H]: columns in the maps' order
        let mut dw = vec![T::zero(); all.len()];
        for (h, row) in dw.chunks_exact_mut(self.channels).enumerate() {
            row.iter_mut().zip(all[h..].iter().step_by(self.hidden)).for_each(|(to, from)| *to = *from);
        }
        dw
    }

    fn output_bias(&self, dy: &[T]) -> Vec<T> {
        let mut sums = vec![0.0; self.outputs];
        for (i, plane) in dy.chunks_exact(self.positions()).enumerate() {
            sums[i % self.outputs] += plane.iter().map(|dy| WithDType::to_f64(*dy)).sum::<f64>();
        }
        sums.into_iter().map(T::of).collect()
    }
}

vectorised_fn! {
    /// Adds to `Σ d` and `Σ d v`, d being the gradient `dr` of ReLU's result where that is above 0; v becomes that result.
    fn add_sums<T: Real>(
        sum_d: &mut [T],
        sum_dv: &mut [T],
        v: &mut [T],
        dr: &[T],
        weight: &[T],
        bias: &[T],
    ) {
        let n = weight.len();
        let (sum_d, sum_dv, bias) = (&mut sum_d[..n], &mut sum_dv[..n], &bias[..n]);
        for (v, dr) in v.chunks_exact_mut(n).zip(dr.chunks_exact(n)) {
            for i in 0..n {
                let normed = v[i] * weight[i] + bias[i];
                let (d, r) = if normed > T::zero() { (dr[i], normed) } else { (T::zero(), T::zero()) };
                sum_d[i] += d;
                sum_dv[i] += d * v[i];
                v[i] = r;
            }
        }
    }
}

vectorised_fn! {
    /// From the gradient of ReLU's result to that of the hidden values, in place; adds it to `sum`.
    fn to_hidden<T: Real>(d: &mut [T], sum: &mut [T], v: &[T], affine: [&[T]; 2], norm: &OfNorm<T>) {
        let n = norm.factor.len();
        let [weight, bias] = affine.map(|vector| &vector[..n]);
        let sum = &mut sum[..n];
        let (factor, mean, slope) = (&norm.factor[..n], &norm.mean[..n], &norm.slope[..n]);
        for (d, v) in d.chunks_exact_mut(n).zip(v.chunks_exact(n)) {
            for i in 0..n {
                let passed = if v[i] * weight[i] + bias[i] > T::zero() { d[i] } else { T::zero() };
                d[i] = factor[i] * (passed - mean[i] - v[i] * slope[i]);
                sum[i] += d[i];
            }
        }
    }
}
