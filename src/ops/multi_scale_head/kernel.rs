//! The head as slices: its maps by size, and the hidden layer with the norm folded into it.

use super::super::blocks::Blocks;
use super::super::cpu::{Loan, Parts, Real, loan};
use super::super::low_rank::resize;
use super::super::product::{Into, Matrix, product};
use super::resample::{Resample, Then, complete};
use super::{Moments, MultiScaleHead};
use candle_core::{Result, WithDType};
use std::ops::Range;

/// A map as a slice.
pub(super) struct Map<'a, T: Real> {
    /// Its place among the head's maps.
    pub(super) i: usize,
    /// `[B, h*w, c]`.
    pub(super) tokens: Loan<'a, T>,
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
    pub(super) fn positions(&self) -> usize {
        self.size.0 * self.size.1
    }
}

impl<T: Real> Map<'_, T> {
    /// Its tokens at `positions` of an image, `of` the positions that a map has.
    pub(super) fn rows(&self, image: usize, of: usize, positions: &Range<usize>) -> &[T] {
        &self.tokens[(image * of + positions.start) * self.c..(image * of + positions.end) * self.c]
    }
}

/// The hidden layer, with something folded into it.
pub(super) struct Layer<T> {
    /// `[Σ c, H]`: the weight transposed.
    weight: Vec<T>,
    bias: Vec<T>,
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
    pub(super) weight: Loan<'a, T>,
    bias: Loan<'a, T>,
    pub(super) norm_weight: Loan<'a, T>,
    pub(super) norm_bias: Loan<'a, T>,
    eps: T,
    /// `[n, H]`.
    pub(super) out_weight: Loan<'a, T>,
    pub(super) out_bias: Loan<'a, T>,
    /// Rows of the output map.
    pub(super) blocks: Blocks,
    pub(super) images: usize,
    pub(super) size: (usize, usize),
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) outputs: usize,
}

impl MultiScaleHead {
    pub(super) fn kernel<T: Real>(&self) -> Result<Kernel<'_, T>> {
        let size = self.maps[0].size;
        let (mut scales, mut column): (Vec<Scale<T>>, usize) = (Vec::new(), 0);
        for (i, map) in self.maps.iter().enumerate() {
            let c = map.tokens.dim(2)?;
            let slices = Map { i, tokens: loan(&map.tokens)?, c, column };
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
            weight: loan(&self.hidden.weight)?,
            bias: loan(&self.hidden.bias)?,
            norm_weight: loan(&self.norm.weight)?,
            norm_bias: loan(&self.norm.bias)?,
            eps: T::of(self.norm.eps),
            out_weight: loan(&self.output.weight)?,
            out_bias: loan(&self.output.bias)?,
            blocks: Blocks::of(size.0, size.1),
            images: self.maps[0].tokens.dim(0)?,
            size,
            channels: column,
            hidden: self.hidden.weight.dim(0)?,
            outputs: self.output.weight.dim(0)?,
        })
    }
}

impl<T: Real> Kernel<'_, T> {
    /// Positions of an image's output.
    pub(super) fn positions(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// Values of each hidden channel.
    pub(super) fn count(&self) -> usize {
        self.images * self.positions()
    }

    /// Positions of some rows of the output.
    pub(super) fn positions_of(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.size.1..rows.end * self.size.1
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
        let of = |(row, bias): (&[T], &T)| {
            T::of(WithDType::to_f64(*bias) + row.iter().zip(x).map(|(w, x)| WithDType::to_f64(*w) * x).sum::<f64>())
        };
        self.weight.chunks_exact(self.channels).zip(&*self.bias).map(of).collect()
    }

    /// An image's hidden maps at their own size, without the bias, of all scales but the first.
    pub(super) fn coarse(&self, image: usize, layer: &Layer<T>) -> Vec<Vec<T>> {
        let hidden = self.hidden;
        let map = |scale: &Scale<T>| {
            let mut z = vec![T::zero(); scale.positions() * hidden];
            let out = Parts::of(&mut z);
            Blocks::of(scale.positions(), 1).for_each(
                || (),
                |(), positions| {
                    #[allow(unsafe_code)]
                    // SAFETY: each position is in one block.
                    let z = unsafe { out.at(positions.start * hidden, positions.len() * hidden) };
                    self.multiply(scale, image, &positions, layer, z);
                },
            );
            z
        };
        self.scales[1..].iter().map(map).collect()
    }

    /// The hidden values of a scale's maps alone, at their own size.
    fn multiply(&self, scale: &Scale<T>, image: usize, positions: &Range<usize>, layer: &Layer<T>, z: &mut [T]) {
        for (i, map) in scale.maps.iter().enumerate() {
            let tokens = Matrix::rows(map.rows(image, scale.positions(), positions), map.c);
            let weight = &layer.weight[map.column * self.hidden..(map.column + map.c) * self.hidden];
            let into = if i == 0 { Into::Write } else { Into::Add };
            product(z, self.hidden, into, tokens, Matrix::rows(weight, self.hidden), T::one());
        }
    }

    /// What `layer` gives in some rows of the output, from the image's coarser hidden maps.
    pub(super) fn fill(
        &self,
        (image, rows): (usize, &Range<usize>),
        (layer, coarse): (&Layer<T>, &[Vec<T>]),
        then: Then,
        into: &mut Rows<T>,
    ) {
        let width = self.size.1 * self.hidden;
        resize(&mut into.z, rows.len() * width);
        self.multiply(&self.scales[0], image, &self.positions_of(rows), layer, &mut into.z);
        into.coarse.resize_with(coarse.len(), Vec::new);
        let by: Vec<&Resample<T>> = self.scales[1..].iter().map(|scale| &scale.resample).collect();
        for (y, z) in rows.clone().zip(into.z.chunks_exact_mut(width)) {
            for ((scale, map), row) in self.scales[1..].iter().zip(coarse).zip(&mut into.coarse) {
                resize(row, scale.size.1 * self.hidden);
                scale.resample.mix_rows(y, map, row);
            }
            complete(z, &layer.bias, &into.coarse, &by, then);
        }
    }
}
