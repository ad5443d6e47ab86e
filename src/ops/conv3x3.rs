//! A 3x3 convolution of tokens whose taps may lie apart.
//!
//! A tap is a product of the part of the map that it sees with one matrix, moved by the tap's place: no position's nine neighbours are ever
//! laid out, and what a tap sees outside the map costs nothing. Backward in the map is the same with the taps turned about and their
//! matrices transposed. Candle's own goes back by a transposed convolution, which is no product of matrices on the CPU.

use super::cpu::{Matrix, Real, add_product, product, resize, simd, values};
use super::feature_map::FeatureMap;
use super::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use super::linear;
use super::shapes::Shapes;
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Taps along a side.
const SIDE: usize = 3;
const TAPS: usize = SIDE * SIDE;
/// Positions of a block: their values stay in the cache, and packing a tap's matrix for their product costs little.
const POSITIONS: usize = 256;

/// A 3x3 convolution with taps `rate` apart, stride 1, and zeros outside the map, which keeps its size:
/// `y[b, i, j] = Σ_kl W[.., k, l] x[b, i + rate (k - 1), j + rate (l - 1)]`.
///
/// # Shapes
/// x `[B, h*w, C]`, W `[out, C, 3, 3]`, result `[B, h*w, out]`.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; a rate of 0.
pub fn conv3x3(x: &FeatureMap, weight: &Tensor, rate: usize) -> Result<Tensor> {
    only(apply(Conv3x3 { x: x.clone(), weight: weight.clone(), rate })?)
}

#[derive(Clone)]
struct Conv3x3 {
    x: FeatureMap,
    weight: Tensor,
    rate: usize,
}

/// Along one side of a map, the outputs that a tap has inputs for: `len` from `to` on, which it makes from the inputs from `from` on.
#[derive(Clone, Copy)]
struct Seen {
    to: usize,
    from: usize,
    len: usize,
}

impl Seen {
    /// Of `n` positions by the tap `k` of three that lie `rate` apart.
    fn by(k: usize, rate: usize, n: usize) -> Self {
        let off = rate.min(n);
        match k {
            0 => Self { to: off, from: 0, len: n - off },
            1 => Self { to: 0, from: 0, len: n },
            _ => Self { to: 0, from: off, len: n - off },
        }
    }

    /// Those of the outputs `among`.
    fn within(self, among: &Range<usize>) -> Self {
        let to = self.to.max(among.start);
        let len = (self.to + self.len).min(among.end).saturating_sub(to);
        Self { to, from: self.from + (to - self.to), len }
    }

    /// As backward sees it: inputs and outputs change places.
    fn back(self) -> Self {
        Self { to: self.from, from: self.to, len: self.len }
    }
}

impl Conv3x3 {
    /// Of rows and columns, what tap `t` sees; `None` where all of that is outside.
    fn seen(&self, t: usize) -> Option<[Seen; 2]> {
        let (h, w) = self.x.size;
        let seen = [Seen::by(t / SIDE, self.rate, h), Seen::by(t % SIDE, self.rate, w)];
        seen.iter().all(|seen| seen.len > 0).then_some(seen)
    }
}

impl Step for Conv3x3 {
    fn name(&self) -> &'static str {
        "conv3x3"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        let x = FeatureMap { tokens: f(&self.x.tokens)?, size: self.x.size };
        Ok(Self { x, weight: f(&self.weight)?, rate: self.rate })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([b, n, c], [out, ..]) = (shapes.sizes("x", &self.x.tokens)?, shapes.sizes::<4>("a weight", &self.weight)?);
        shapes.expect("x", &self.x.tokens, &[b, shapes.tokens(self.x.size)?, c])?;
        shapes.expect("a weight", &self.weight, &[out, c, SIDE, SIDE])?;
        shapes.result(&[b, n, out])?;
        if self.rate == 0 {
            candle_core::bail!("conv3x3: expected taps at least 1 apart, got a rate of 0")
        }
        Ok(())
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let ((b, n, _), (out, c, ..), (h, w)) = (self.x.tokens.dims3()?, self.weight.dims4()?, self.x.size);
        let x = self.x.to_nhwc()?;
        let tap = |t: usize| {
            let [rows, columns] = self.seen(t)?;
            Some([(1, rows, h), (2, columns, w)]).map(|sides| {
                let part =
                    sides.iter().try_fold(x.clone(), |x, (side, seen, _)| x.narrow(*side, seen.from, seen.len))?;
                let weight = self.weight.narrow(2, t / SIDE, 1)?.narrow(3, t % SIDE, 1)?.reshape((out, c))?;
                let part = linear(&part.contiguous()?, &weight, None)?;
                let pad = |y: Tensor, (side, seen, n): &(usize, Seen, usize)| {
                    y.pad_with_zeros(*side, seen.to, n - seen.to - seen.len)
                };
                sides.iter().try_fold(part, pad)
            })
        };
        let sum = |sum: Option<Tensor>, part: Result<Tensor>| match sum {
            Some(sum) => (sum + part?).map(Some),
            None => part.map(Some),
        };
        let sum = (0..TAPS).filter_map(tap).try_fold(None, sum)?;
        sum.map_or_else(|| candle_core::bail!("conv3x3: no tap"), |sum| Ok(vec![sum.reshape((b, n, out))?]))
    }
}

/// Channels-last values of maps of one size.
struct Maps<'a, T> {
    values: &'a [T],
    size: (usize, usize),
    channels: usize,
}

impl<T: Real> Maps<'_, T> {
    /// Of an image, `rows` and `columns` of inputs, one after the other in `into`.
    fn gather(&self, image: usize, [rows, columns]: [Seen; 2], into: &mut Vec<T>) {
        let (h, w) = self.size;
        into.clear();
        for row in rows.from..rows.from + rows.len {
            let start = ((image * h + row) * w + columns.from) * self.channels;
            into.extend_from_slice(&self.values[start..start + columns.len * self.channels]);
        }
    }
}

impl Conv3x3 {
    /// Each tap's matrix `[out, C]`, one after the other.
    fn taps<T: Real>(&self) -> Result<Vec<T>> {
        let weight = values::<T>(&self.weight)?;
        Ok((0..TAPS).flat_map(|t| weight[t..].iter().step_by(TAPS).copied()).collect())
    }

    /// The sum over all taps of what they make of `x`, for maps of `out` channels; `tap` gives what a tap sees and its matrix, `[C, out]`.
    fn convolve<'a, T: Real>(
        &self,
        x: &Maps<T>,
        out: usize,
        tap: impl Fn(usize) -> Option<([Seen; 2], Matrix<'a, T>)> + Sync,
    ) -> Vec<T> {
        let (h, w) = x.size;
        let taps: Vec<_> = (0..TAPS).filter_map(tap).collect();
        let rows = POSITIONS.div_ceil(w);
        let mut y = vec![T::zero(); x.values.len() / x.channels * out];
        y.par_chunks_mut(h * w * out).enumerate().for_each(|(image, y)| {
            let block = |[from, to]: &mut [Vec<T>; 2], (i, y): (usize, &mut [T])| {
                let among = i * rows..h.min((i + 1) * rows);
                for ([seen_rows, columns], matrix) in &taps {
                    let seen_rows = seen_rows.within(&among);
                    x.gather(image, [seen_rows, *columns], from);
                    resize(to, from.len() / x.channels * out);
                    product(to, out, Matrix::rows(from, x.channels), *matrix, T::one());
                    let first = seen_rows.to - among.start;
                    for (row, part) in (first..).zip(to.chunks_exact(columns.len * out)) {
                        simd::add(&mut y[(row * w + columns.to) * out..][..part.len()], part);
                    }
                }
            };
            y.par_chunks_mut(rows * w * out).enumerate().for_each_init(<[Vec<T>; 2]>::default, block);
        });
        y
    }

    /// The weight's gradient: each tap's by itself, from what it sees of all images.
    fn of_weight<T: Real>(&self, x: &Maps<T>, dy: &Maps<T>) -> Vec<T> {
        let (c, out) = (x.channels, dy.channels);
        let images = x.values.len() / (x.size.0 * x.size.1 * c);
        let of_tap = |t: usize| {
            let mut sum = vec![T::zero(); out * c];
            let Some(seen) = self.seen(t) else { return sum };
            let [mut from, mut to] = <[Vec<T>; 2]>::default();
            for image in 0..images {
                x.gather(image, seen, &mut from);
                dy.gather(image, seen.map(Seen::back), &mut to);
                add_product(&mut sum, c, Matrix::rows(&to, out).t(), Matrix::rows(&from, c), T::one());
            }
            sum
        };
        let taps: Vec<Vec<T>> = (0..TAPS).into_par_iter().map(of_tap).collect();
        (0..out * c).flat_map(|i| taps.iter().map(move |tap| tap[i])).collect()
    }
}

impl<T: Real> CpuKernel<T> for Conv3x3 {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let ((b, n, c), out) = (self.x.tokens.dims3()?, self.weight.dim(0)?);
        let (x, taps) = (values::<T>(&self.x.tokens)?, self.taps::<T>()?);
        let x = Maps { values: &x, size: self.x.size, channels: c };
        let matrix = |t: usize| Matrix::rows(&taps[t * out * c..(t + 1) * out * c], c);
        let y = self.convolve(&x, out, |t| Some((self.seen(t)?, matrix(t).t())));
        Ok((vec![Output::new(y, (b, n, out))], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (size, c, out) = (self.x.size, self.x.tokens.dim(2)?, self.weight.dim(0)?);
        let (x, dy) = (values::<T>(&self.x.tokens)?, values::<T>(dy)?);
        let (x, dy) = (Maps { values: &x, size, channels: c }, Maps { values: &dy, size, channels: out });
        if self.weight.track_op() {
            grads.give_values(&self.weight, self.of_weight(&x, &dy))?;
        }
        if self.x.tokens.track_op() {
            let taps = self.taps::<T>()?;
            let matrix = |t: usize| Matrix::rows(&taps[t * out * c..(t + 1) * out * c], c);
            let dx = self.convolve(&dy, c, |t| Some((self.seen(t)?.map(Seen::back), matrix(t))));
            grads.give_values(&self.x.tokens, dx)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::{DType, Var};

    /// Rates that reach within the map, past one side of it, and past all of it.
    const RATES: [usize; 6] = [1, 2, 3, 4, 5, 1 << 40];
    const SIZE: (usize, usize) = (5, 4);

    fn inputs() -> Result<[Tensor; 2]> {
        Ok([normal(1, &[2, 20, 3])?, normal(2, &[4, 3, 3, 3])?])
    }

    fn conv(v: &[Tensor], rate: usize) -> Result<Tensor> {
        conv3x3(&FeatureMap { tokens: v[0].clone(), size: SIZE }, &v[1], rate)
    }

    #[test]
    fn both_definitions_are_candles_convolution() -> Result<()> {
        let v = inputs()?;
        for rate in &RATES[..5] {
            let image = FeatureMap { tokens: v[0].clone(), size: SIZE }.to_nchw()?;
            let want = FeatureMap::from_nchw(&image.conv2d(&v[1], *rate, 1, *rate, 1)?)?.tokens;
            for by in Definition::ALL {
                close(&by.run(|| conv(&v, *rate))?, &want, 1e-12)?;
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_agree_with_finite_differences() -> Result<()> {
        let v = inputs()?;
        for rate in RATES {
            for by in Definition::ALL {
                check(&[&v[0], &v[1]], |v| by.run(|| conv(v, rate)))?;
            }
        }
        Ok(())
    }

    /// Several blocks of rows, the last one short, and more rows than a block among those that a tap does not see.
    #[test]
    fn large_maps_agree_in_values_and_gradients() -> Result<()> {
        let (x, weight) = (normal(3, &[2, 45 * 23, 3])?, normal(4, &[2, 3, 3, 3])?);
        for rate in [1, 12, 24, 36] {
            let run = |by: Definition| {
                let [x, weight] = [&x, &weight].map(|tensor| Var::from_tensor(&tensor.to_dtype(DType::F32)?));
                let (x, weight) = (x?, weight?);
                let map = FeatureMap { tokens: x.as_tensor().clone(), size: (45, 23) };
                let y = by.run(|| conv3x3(&map, &weight, rate))?;
                let grads = (&y * normal(5, y.dims())?.to_dtype(DType::F32)?)?.sum_all()?.backward()?;
                Ok::<_, candle_core::Error>([y, grads.get(&x).unwrap().clone(), grads.get(&weight).unwrap().clone()])
            };
            for (got, want) in run(Definition::Fused)?.iter().zip(run(Definition::Composed)?.iter()) {
                close(got, want, 1e-5)?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_weight_that_does_not_train_gets_no_gradient() -> Result<()> {
        let [x, weight] = inputs()?;
        let x = Var::from_tensor(&x)?;
        let grads = conv(&[x.as_tensor().clone(), weight.clone()], 2)?.sum_all()?.backward()?;
        assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
        Ok(())
    }
}
