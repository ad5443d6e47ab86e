//! The head as slices: its maps by size, and the hidden layer with the norm folded into it.
#![allow(unsafe_code)] // blocks of positions write their own parts of the hidden maps

use super::resample::{Resample, Then, complete};
use super::{Moments, MultiScaleHead};
use crate::ops::cpu::simd;
use crate::ops::cpu::{Blocks, Into, Matrix, Parts, Real, Values, product_into, resize, values};
use candle_core::{Result, WithDType};
use std::borrow::Cow;
use std::ops::Range;

/// Positions of a block: backward holds two arrays of them, each as wide as the hidden layer, in the cache.
const POSITIONS: usize = 64;

/// A map as a slice.
pub(super) struct Map<'a, T: Real> {
    /// Its place among the head's maps.
    pub(super) i: usize,
    /// `[B, h*w, c]`.
    pub(super) tokens: Values<'a, T>,
    pub(super) c: usize,
    /// Its first column in the hidden weight.
    pub(super) column: usize,
}

/// Maps of one size: their hidden maps are one.
pub(super) struct Scale<'a, T: Real> {
    pub(super) size: (usize, usize),
    pub(super) maps: Vec<Map<'a, T>>,
    pub(super) resample: Resample<T>,
}

impl<T: Real> Scale<'_, T> {
    /// Its rows in blocks.
    pub(super) fn blocks(&self) -> Blocks {
        Blocks::at_most(POSITIONS, self.size.0, self.size.1)
    }

    /// The positions of some of an image's rows, counted through all images.
    pub(super) fn positions(&self, image: usize, rows: &Range<usize>) -> Range<usize> {
        let (h, w) = self.size;
        (image * h + rows.start) * w..(image * h + rows.end) * w
    }
}

impl<T: Real> Map<'_, T> {
    /// Its tokens at positions counted through all images.
    pub(super) fn rows(&self, positions: &Range<usize>) -> &[T] {
        &self.tokens[positions.start * self.c..positions.end * self.c]
    }
}

/// The hidden layer, with something folded into it.
pub(super) struct Layer<T> {
    /// `[Σ c, H]`: the weight transposed.
    weight: Vec<T>,
    bias: Vec<T>,
}

/// What rows of an image's hidden values are made from.
pub(super) struct Image<'a, T: Clone> {
    pub(super) i: usize,
    layer: &'a Layer<T>,
    /// What multiplies its hidden channels after ReLU, if anything.
    pub(super) factors: Option<Vec<T>>,
    /// `[n, H]`: the output weight, those factors in it.
    pub(super) out_weight: Cow<'a, [T]>,
    /// The hidden maps of all scales but the first, at their own size and without the bias.
    coarse: Vec<Vec<T>>,
}

/// What a thread makes rows of hidden values in.
pub(super) struct Rows<T> {
    /// `[rows, w_0, H]`.
    pub(super) z: Vec<T>,
    /// A row of each coarser scale, at its own width.
    coarse: Vec<Vec<T>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { z: Vec::new(), coarse: Vec::new() }
    }
}

pub(super) struct Kernel<'a, T: Real> {
    /// The first is the output's.
    pub(super) scales: Vec<Scale<'a, T>>,
    /// `[H, Σ c]`.
    pub(super) weight: Values<'a, T>,
    bias: Values<'a, T>,
    pub(super) norm_weight: Values<'a, T>,
    pub(super) norm_bias: Values<'a, T>,
    eps: T,
    /// `[B, H]`.
    dropped: Option<&'a [f64]>,
    /// `[n, H]`.
    pub(super) out_weight: Values<'a, T>,
    pub(super) out_bias: Values<'a, T>,
    pub(super) images: usize,
    pub(super) size: (usize, usize),
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) outputs: usize,
}

/// A row-major matrix with each column times its factor.
pub(super) fn times_columns<T: Real>(matrix: &[T], factors: &[T]) -> Vec<T> {
    matrix.iter().zip(factors.iter().cycle()).map(|(value, factor)| *value * *factor).collect()
}

impl MultiScaleHead {
    pub(super) fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let size = self.maps[0].size;
        let (mut scales, mut column): (Vec<Scale<T>>, usize) = (Vec::new(), 0);
        for (i, map) in self.maps.iter().enumerate() {
            let c = map.tokens.dim(2)?;
            let slices = Map { i, tokens: values(&map.tokens)?, c, column };
            column += c;
            match scales.iter_mut().find(|scale| scale.size == map.size) {
                Some(scale) => scale.maps.push(slices),
                None => {
                    let resample = Resample::new(map.size, size);
                    scales.push(Scale { size: map.size, maps: vec![slices], resample });
                }
            }
        }
        Ok(Kernel {
            scales,
            weight: values(&self.hidden.weight)?,
            bias: values(&self.hidden.bias)?,
            norm_weight: values(&self.norm.weight)?,
            norm_bias: values(&self.norm.bias)?,
            eps: T::of(self.norm.eps),
            dropped: self.dropped.as_deref(),
            out_weight: values(&self.output.weight)?,
            out_bias: values(&self.output.bias)?,
            images: self.maps[0].tokens.dim(0)?,
            size,
            channels: column,
            hidden: self.hidden.weight.dim(0)?,
            outputs: self.output.weight.dim(0)?,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// The scale of the output.
    pub(super) fn finest(&self) -> &Scale<'_, T> {
        &self.scales[0]
    }

    /// Positions of an image's output.
    pub(super) fn positions(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// Values of each hidden channel.
    pub(super) fn count(&self) -> usize {
        self.images * self.positions()
    }

    /// One over each hidden channel's standard deviation.
    pub(super) fn scale_of(&self, moments: &Moments<T>) -> Vec<T> {
        moments.variance.iter().map(|variance| (*variance + self.eps).sqrt().recip()).collect()
    }

    /// The layer that gives `(z - mean) factor`, z the hidden values.
    pub(super) fn folded(&self, mean: &[T], factor: &[T]) -> Layer<T> {
        let mut weight = vec![T::zero(); self.weight.len()];
        for (h, row) in self.weight.chunks_exact(self.channels).enumerate() {
            for (to, w) in weight[h..].iter_mut().step_by(self.hidden).zip(row) {
                *to = *w * factor[h];
            }
        }
        let bias = self.bias.iter().zip(mean).zip(factor).map(|((bias, mean), factor)| (*bias - *mean) * *factor);
        Layer { bias: bias.collect(), weight }
    }

    /// The layer that gives the normed values.
    pub(super) fn normed(&self, moments: &Moments<T>) -> Layer<T> {
        let scale = self.scale_of(moments);
        let factor: Vec<T> = scale.iter().zip(&*self.norm_weight).map(|(scale, weight)| *scale * *weight).collect();
        let mut layer = self.folded(&moments.mean, &factor);
        layer.bias.iter_mut().zip(&*self.norm_bias).for_each(|(bias, shift)| *bias += *shift);
        layer
    }

    /// `bias + weight x` for the values x of one position, in f64: what the unfolded layer makes of means.
    pub(super) fn hidden_of(&self, x: &[f64]) -> Vec<T> {
        let mut wide = vec![0.0; self.channels];
        let mut of = |(row, bias): (&[T], &T)| {
            wide.iter_mut().zip(row).for_each(|(wide, w)| *wide = WithDType::to_f64(*w));
            T::of(WithDType::to_f64(*bias) + simd::vectorised(|| simd::dot(&wide, x)))
        };
        self.weight.chunks_exact(self.channels).zip(&*self.bias).map(&mut of).collect()
    }

    /// Image `i`, its coarser maps taken through `layer`.
    pub(super) fn image<'a>(&'a self, i: usize, layer: &'a Layer<T>) -> Image<'a, T> {
        let map = |scale: &Scale<T>| {
            let width = scale.size.1 * self.hidden;
            let mut z = vec![T::zero(); scale.size.0 * width];
            let out = Parts::of(&mut z);
            let each = |(): &mut (), rows: Range<usize>| {
                // SAFETY: `Blocks` puts each row into one block, so that no other part has these places.
                let z = unsafe { out.at(rows.start * width, rows.len() * width) };
                self.multiply(scale, &scale.positions(i, &rows), layer, z);
            };
            scale.blocks().for_each(|| (), each);
            z
        };
        let factors = self.factors(i);
        let out_weight = match &factors {
            Some(factors) => Cow::Owned(times_columns(&self.out_weight, factors)),
            None => Cow::Borrowed(&*self.out_weight),
        };
        Image { i, layer, factors, out_weight, coarse: self.scales[1..].iter().map(map).collect() }
    }

    /// What multiplies image `i`'s hidden channels after ReLU.
    fn factors(&self, i: usize) -> Option<Vec<T>> {
        let all = self.dropped?;
        Some(all[i * self.hidden..(i + 1) * self.hidden].iter().map(|factor| T::of(*factor)).collect())
    }

    /// What the layer's weight makes of a scale's maps, at their own size.
    fn multiply(&self, scale: &Scale<T>, positions: &Range<usize>, layer: &Layer<T>, z: &mut [T]) {
        for (i, map) in scale.maps.iter().enumerate() {
            let weight = &layer.weight[map.column * self.hidden..(map.column + map.c) * self.hidden];
            let (tokens, weight) = (Matrix::rows(map.rows(positions), map.c), Matrix::rows(weight, self.hidden));
            product_into(z, self.hidden, if i == 0 { Into::Write } else { Into::Add }, tokens, weight, T::one());
        }
    }

    /// What the image's layer gives in some rows of the output.
    pub(super) fn fill(&self, image: &Image<T>, rows: &Range<usize>, then: Then, into: &mut Rows<T>) {
        let (width, scales) = (self.size.1 * self.hidden, &self.scales[1..]);
        resize(&mut into.z, rows.len() * width);
        self.multiply(self.finest(), &self.finest().positions(image.i, rows), image.layer, &mut into.z);
        into.coarse.resize_with(scales.len(), Vec::new);
        let by: Vec<&Resample<T>> = scales.iter().map(|scale| &scale.resample).collect();
        for (y, z) in rows.clone().zip(into.z.chunks_exact_mut(width)) {
            for ((scale, map), row) in scales.iter().zip(&image.coarse).zip(&mut into.coarse) {
                resize(row, scale.size.1 * self.hidden);
                scale.resample.mix_rows(y, map, row);
            }
            complete(z, &image.layer.bias, &into.coarse, &by, then);
        }
    }
}
