//! Attention inside one window on slices: no scores outlive the window.

use super::cpu::{Loan, Real, loan};
use super::low_rank::resize;
use super::product::{Into, Matrix, product};
use super::simd;
use candle_core::{Result, Tensor};

/// Attention of windows of one layer: see [`super::window_attention`].
pub(super) struct WindowKernel<'a, T: Real> {
    /// `[nH, N, N]`.
    bias: Loan<'a, T>,
    /// `[nW, N, N]`.
    mask: Option<Loan<'a, T>>,
    heads: usize,
    /// Patches of a window.
    n: usize,
    /// Prompts and patches.
    length: usize,
    c: usize,
}

impl<'a, T: Real> WindowKernel<'a, T> {
    pub(super) fn new(bias: &'a Tensor, mask: Option<&'a Tensor>, length: usize, c: usize) -> Result<Self> {
        let (heads, n, _) = bias.dims3()?;
        Ok(Self { bias: loan(bias)?, mask: mask.map(loan).transpose()?, heads, n, length, c })
    }

    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    pub(super) fn bias_len(&self) -> usize {
        self.bias.len()
    }

    fn head_dim(&self) -> usize {
        self.c / self.heads
    }

    /// Queries (0), keys (1) or values (2) of a head: `[P+N, d]`.
    fn part<'b>(&self, qkv: &'b [T], which: usize, head: usize) -> Matrix<'b, T> {
        Matrix::part(&qkv[which * self.c + head * self.head_dim()..], self.length, self.head_dim(), 3 * self.c)
    }

    /// `qkv` `[P+N, 3C]` of window `w` to `out` `[P+N, C]`; `weights` is room for a head's.
    pub(super) fn forward(&self, qkv: &[T], w: usize, out: &mut [T], weights: &mut Vec<T>) {
        resize(weights, self.length * self.length);
        for head in 0..self.heads {
            self.weights(qkv, w, head, weights);
            let out = &mut out[head * self.head_dim()..];
            product(out, self.c, Into::Write, Matrix::rows(weights, self.length), self.part(qkv, 2, head), T::one());
        }
    }

    /// The unscaled scores of prompts with patches: `[nH, P, N]`.
    pub(super) fn prompt_scores(&self, qkv: &[T], out: &mut [T]) {
        let (p, n, d) = (self.length - self.n, self.n, self.head_dim());
        for (head, out) in out.chunks_exact_mut((p * n).max(1)).enumerate() {
            let q = Matrix::part(&qkv[head * d..], p, d, 3 * self.c);
            let k = Matrix::part(&qkv[p * 3 * self.c + self.c + head * d..], n, d, 3 * self.c);
            product(out, n, Into::Write, q, k.t(), T::one());
        }
    }

    /// `softmax(q kᵀ / sqrt(d) + bias + mask)` of a head: `[P+N, P+N]`.
    fn weights(&self, qkv: &[T], w: usize, head: usize, out: &mut [T]) {
        let (n, p) = (self.n, self.length - self.n);
        product(out, self.length, Into::Write, self.part(qkv, 0, head), self.part(qkv, 1, head).t(), self.scale());
        let mask = self.mask.as_ref().map(|mask| &mask[w % (mask.len() / (n * n)) * n * n..][..n * n]);
        softmax(out, p, &self.bias[head * n * n..][..n * n], mask);
    }

    fn scale(&self) -> T {
        T::of((self.head_dim() as f64).powf(-0.5))
    }

    /// `dqkv` from `dout` and, where something reads them, from the gradient of the prompts' scores; adds to the bias's.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        qkv: &[T],
        w: usize,
        dout: &[T],
        dprompt_scores: Option<&[T]>,
        dqkv: &mut [T],
        dbias: &mut [T],
        [weights, dlogits]: [&mut Vec<T>; 2],
    ) {
        let (length, n, c, d) = (self.length, self.n, self.c, self.head_dim());
        let p = length - n;
        resize(weights, length * length);
        resize(dlogits, length * length);
        for head in 0..self.heads {
            self.weights(qkv, w, head, weights);
            let dout = Matrix::part(&dout[head * d..], length, d, c);
            let at = |which: usize| which * c + head * d;
            let across = Matrix::rows(weights, length);
            product(&mut dqkv[at(2)..], 3 * c, Into::Write, across.t(), dout, T::one());
            product(dlogits, length, Into::Write, dout, self.part(qkv, 2, head).t(), T::one());
            softmax_backward(weights, dlogits, p, &mut dbias[head * n * n..][..n * n], self.scale());
            if let Some(d) = dprompt_scores {
                for (row, d) in dlogits.chunks_exact_mut(length).zip(d[head * p * n..][..p * n].chunks_exact(n)) {
                    simd::vectorised(|| simd::add(&mut row[p..], d));
                }
            }
            let dlogits = Matrix::rows(dlogits, length);
            product(&mut dqkv[at(0)..], 3 * c, Into::Write, dlogits, self.part(qkv, 1, head), T::one());
            product(&mut dqkv[at(1)..], 3 * c, Into::Write, dlogits.t(), self.part(qkv, 0, head), T::one());
        }
    }
}

simd::vectorised_fn! {
    /// `softmax(logits + bias + mask)` in place, row by row; bias and mask lie on what follows the `p` prompts.
    fn softmax<T: Real>(logits: &mut [T], p: usize, bias: &[T], mask: Option<&[T]>) {
        let n = bias.len().isqrt();
        for (i, row) in logits.chunks_exact_mut(p + n).enumerate() {
            if i >= p {
                simd::add(&mut row[p..], &bias[(i - p) * n..][..n]);
                if let Some(mask) = mask {
                    simd::add(&mut row[p..], &mask[(i - p) * n..][..n]);
                }
            }
            let most = simd::largest(row);
            row.iter_mut().for_each(|v| *v = (*v - most).exponential());
            let whole = simd::sum(row).recip();
            row.iter_mut().for_each(|v| *v *= whole);
        }
    }
}

simd::vectorised_fn! {
    /// `dlogits = y (dy - Σ dy y)` in place, added to the bias's gradient, then scaled to that of `q kᵀ`.
    fn softmax_backward<T: Real>(y: &[T], dy: &mut [T], p: usize, dbias: &mut [T], scale: T) {
        let n = dbias.len().isqrt();
        for (i, (y, dy)) in y.chunks_exact(p + n).zip(dy.chunks_exact_mut(p + n)).enumerate() {
            let along = simd::dot(y, dy);
            y.iter().zip(dy.iter_mut()).for_each(|(y, dy)| *dy = *y * (*dy - along));
            if i >= p {
                simd::add(&mut dbias[(i - p) * n..][..n], &dy[p..]);
            }
            dy.iter_mut().for_each(|dy| *dy *= scale);
        }
    }
}
