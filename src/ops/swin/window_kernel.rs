//! Attention inside one window on slices: no scores outlive the window.

use crate::ops::cpu::simd;
use crate::ops::cpu::tile::{COLUMNS, small_product};
use crate::ops::cpu::{Matrix, Real, Values, new_product, resize, values};
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;

/// Attention of windows of one layer: see [`super::window_attention`].
pub(in crate::ops) struct WindowKernel<'a, T: Real> {
    /// What is added to a head's scores, `[nH, P+N, width]`: 0 for prompts, minus infinity beyond the last row's end.
    bias: Vec<T>,
    /// `[nW, N, N]`.
    mask: Option<Values<'a, T>>,
    /// Which windows the mask does anything in.
    masked: Vec<bool>,
    heads: usize,
    /// Patches of a window.
    n: usize,
    /// Prompts and patches.
    length: usize,
    /// Values from one row of scores to the next: `length` and room to whole registers.
    width: usize,
    c: usize,
}

/// What a thread reuses from head to head.
#[derive(Default)]
pub(in crate::ops) struct Scratch<T> {
    /// Keys or values of a head, transposed: `[d, width]`.
    turned: Vec<T>,
    weights: Vec<T>,
    dlogits: Vec<T>,
}

impl<T: Real> Scratch<T> {
    fn fit(&mut self, kernel: &WindowKernel<T>) {
        resize(&mut self.turned, kernel.head_dim() * kernel.width);
        resize(&mut self.weights, kernel.length * kernel.width);
        resize(&mut self.dlogits, kernel.length * kernel.width);
    }
}

impl<'a, T: Real> WindowKernel<'a, T> {
    pub(in crate::ops) fn new(bias: &Tensor, mask: Option<&'a Tensor>, length: usize, c: usize) -> Result<Self> {
        let (heads, n, _) = bias.dims3()?;
        let (width, p) = (length.next_multiple_of(COLUMNS), length - n);
        let mut padded = vec![T::zero(); heads * length * width];
        let bias = values::<T>(bias)?;
        for (i, row) in padded.chunks_exact_mut(width).enumerate() {
            row[length..].fill(T::neg_infinity());
            let (head, query) = (i / length, i % length);
            if query >= p {
                row[p..length].copy_from_slice(&bias[(head * n + query - p) * n..][..n]);
            }
        }
        let mask = mask.map(values::<T>).transpose()?;
        let windows = mask.as_ref().map_or(&[][..], |mask| mask).chunks_exact(n * n);
        let masked = windows.map(|mask| mask.iter().any(|v| *v != T::zero())).collect();
        Ok(Self { bias: padded, mask, masked, heads, n, length, width, c })
    }

    pub(in crate::ops) fn heads(&self) -> usize {
        self.heads
    }

    /// Values of the bias as it came, `[nH, N, N]`.
    pub(in crate::ops) fn bias_len(&self) -> usize {
        self.heads * self.n * self.n
    }

    fn head_dim(&self) -> usize {
        self.c / self.heads
    }

    /// Queries (0), keys (1) or values (2) of a head: `[P+N, d]`.
    fn part<'b>(&self, qkv: &'b [T], which: usize, head: usize) -> Matrix<'b, T> {
        Matrix::part(&qkv[which * self.c + head * self.head_dim()..], self.length, self.head_dim(), 3 * self.c)
    }

    /// Scores, or their gradients: rows of `width` values, the last of which are room.
    fn scores<'b>(&self, scores: &'b [T]) -> Matrix<'b, T> {
        Matrix::part(scores, self.length, self.length, self.width)
    }

    /// `qkv` `[P+N, 3C]` of window `w` to `out` `[P+N, C]`, which the heads write whole.
    pub(in crate::ops) fn forward(&self, qkv: &[T], w: usize, out: &mut [MaybeUninit<T>], scratch: &mut Scratch<T>) {
        scratch.fit(self);
        let d = self.head_dim();
        for head in 0..self.heads {
            self.weights(qkv, w, head, scratch);
            let values = &qkv[2 * self.c + head * d..];
            small_product(
                (&mut out[head * d..], self.c),
                self.scores(&scratch.weights),
                (values, 3 * self.c),
                d,
                T::one(),
            );
        }
    }

    /// The unscaled scores of prompts with patches: `[nH, P, N]`, all written.
    pub(in crate::ops) fn prompt_scores(&self, qkv: &[T], out: &mut [MaybeUninit<T>]) {
        let (p, n, d) = (self.length - self.n, self.n, self.head_dim());
        for (head, out) in out.chunks_exact_mut((p * n).max(1)).enumerate() {
            let q = Matrix::part(&qkv[head * d..], p, d, 3 * self.c);
            let k = Matrix::part(&qkv[p * 3 * self.c + self.c + head * d..], n, d, 3 * self.c);
            new_product(out, q, k.t(), T::one());
        }
    }

    /// `softmax(q kᵀ / sqrt(d) + bias + mask)` of a head into `scratch.weights`: `[P+N, width]`, 0 in the room.
    fn weights(&self, qkv: &[T], w: usize, head: usize, Scratch { turned, weights, .. }: &mut Scratch<T>) {
        let (n, size) = (self.n, self.length * self.width);
        self.turn(qkv, 1, head, turned);
        small_product((weights, self.width), self.part(qkv, 0, head), (turned, self.width), self.width, self.scale());
        let mask = self.mask.as_ref().map(|mask| (w % self.masked.len(), mask)).filter(|(w, _)| self.masked[*w]);
        if let Some((w, mask)) = mask {
            add_mask(weights, self.width, self.length - n, &mask[w * n * n..][..n * n]);
        }
        softmax(weights, self.width, &self.bias[head * size..][..size]);
    }

    /// Keys (1) or values (2) of a head transposed, `[d, width]`.
    fn turn(&self, qkv: &[T], which: usize, head: usize, turned: &mut [T]) {
        let d = self.head_dim();
        transpose(&qkv[which * self.c + head * d..], 3 * self.c, self.length, turned, self.width);
    }

    fn scale(&self) -> T {
        T::of((self.head_dim() as f64).powf(-0.5))
    }

    /// `dqkv` from `dout` and, where something reads them, from the gradient of the prompts' scores; adds to the bias's.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::ops) fn backward(
        &self,
        qkv: &[T],
        w: usize,
        dout: &[T],
        dprompt_scores: Option<&[T]>,
        dqkv: &mut [T],
        dbias: &mut [T],
        scratch: &mut Scratch<T>,
    ) {
        let (n, c, d) = (self.n, self.c, self.head_dim());
        let (p, width) = (self.length - n, self.width);
        scratch.fit(self);
        for head in 0..self.heads {
            self.weights(qkv, w, head, scratch);
            let at = |which: usize| which * c + head * d;
            let dout = &dout[head * d..];
            let weights = self.scores(&scratch.weights);
            small_product((&mut dqkv[at(2)..], 3 * c), weights.t(), (dout, c), d, T::one());
            self.turn(qkv, 2, head, &mut scratch.turned);
            let (dlogits, dout) = (&mut scratch.dlogits, Matrix::part(dout, self.length, d, c));
            small_product((dlogits, width), dout, (&scratch.turned, width), width, T::one());
            softmax_backward(&scratch.weights, dlogits, width, p, &mut dbias[head * n * n..][..n * n], self.scale());
            if let Some(d) = dprompt_scores {
                for (row, d) in dlogits.chunks_exact_mut(width).zip(d[head * p * n..][..p * n].chunks_exact(n)) {
                    simd::vectorised(|| simd::add(&mut row[p..p + n], d));
                }
            }
            let dlogits = self.scores(dlogits);
            small_product((&mut dqkv[at(0)..], 3 * c), dlogits, (&qkv[at(1)..], 3 * c), d, T::one());
            small_product((&mut dqkv[at(1)..], 3 * c), dlogits.t(), (&qkv[at(0)..], 3 * c), d, T::one());
        }
    }
}

simd::vectorised_fn! {
    /// `turned[x, j] = rows[j, x]` for `length` rows `stride` apart; the room after a row's end is 0.
    fn transpose<T: Real>(rows: &[T], stride: usize, length: usize, turned: &mut [T], width: usize) {
        for (x, turned) in turned.chunks_exact_mut(width).enumerate() {
            let (values, room) = turned.split_at_mut(length);
            for (value, row) in values.iter_mut().zip(rows[x..].chunks(stride)) {
                *value = row[0];
            }
            room.fill(T::zero());
        }
    }
}

simd::vectorised_fn! {
    /// Adds a window's mask to the scores of patches with patches, which follow `p` prompts.
    fn add_mask<T: Real>(scores: &mut [T], width: usize, p: usize, mask: &[T]) {
        let n = mask.len().isqrt();
        for (row, mask) in scores.chunks_exact_mut(width).skip(p).zip(mask.chunks_exact(n)) {
            simd::add(&mut row[p..p + n], mask);
        }
    }
}

simd::vectorised_fn! {
    /// `softmax(scores + bias)` in place, row by row.
    fn softmax<T: Real>(scores: &mut [T], width: usize, bias: &[T]) {
        for (row, bias) in scores.chunks_exact_mut(width).zip(bias.chunks_exact(width)) {
            simd::add(row, bias);
            let most = simd::largest(row);
            for v in row.iter_mut() {
                *v = (*v - most).exponential();
            }
            let whole = simd::sum(row).recip();
            for v in row.iter_mut() {
                *v *= whole;
            }
        }
    }
}

simd::vectorised_fn! {
    /// `dlogits = y (dy - Σ dy y)` in place, added to the bias's gradient, then scaled to that of `q kᵀ`.
    fn softmax_backward<T: Real>(y: &[T], dy: &mut [T], width: usize, p: usize, dbias: &mut [T], scale: T) {
        let n = dbias.len().isqrt();
        for (i, (y, dy)) in y.chunks_exact(width).zip(dy.chunks_exact_mut(width)).enumerate() {
            let along = simd::dot(y, dy);
            for (y, dy) in y.iter().zip(dy.iter_mut()) {
                *dy = *y * (*dy - along);
            }
            if i >= p {
                simd::add(&mut dbias[(i - p) * n..][..n], &dy[p..p + n]);
            }
            for dy in dy.iter_mut() {
                *dy *= scale;
            }
        }
    }
}
