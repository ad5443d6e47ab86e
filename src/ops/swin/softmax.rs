//! The softmax of window attention: scaled, biased, masked.

use crate::ops::cpu::float::{Real, by_float};
use crate::ops::cpu::rows::sum_rows;
use crate::ops::cpu::slices::{slice, values};
use crate::ops::graph::definition::is_fused;
use crate::ops::graph::trace::Traced;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// `softmax(scores * scale + bias + mask)` over the last dimension, bias and mask on the patch-patch part alone.
///
/// # Shapes
/// `scores` `[B*nW, nH, P+N, P+N]`, `bias` `[nH, N, N]`, `mask` `[nW, N, N]` or none: a constant of any float type.
pub(in crate::ops) fn attention_softmax(
    scores: &Tensor,
    bias: &Tensor,
    mask: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    if !is_fused(scores) {
        return composed(scores, bias, mask, scale);
    }
    let mask = mask.map(|mask| mask.detach().to_dtype(scores.dtype())?.contiguous()).transpose()?;
    scores.contiguous()?.apply_op2(&bias.contiguous()?, Traced(AttentionSoftmax { mask, scale }))
}

fn composed(scores: &Tensor, bias: &Tensor, mask: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (bw, heads, length, _) = scores.dims4()?;
    let p = length - bias.dim(1)?;
    let logits = (scores * scale)?.broadcast_add(&after_prompts(bias, p)?)?;
    let logits = match mask {
        None => logits,
        Some(mask) => {
            let nw = mask.dim(0)?;
            let mask = after_prompts(&mask.detach().to_dtype(scores.dtype())?, p)?.unsqueeze(1)?; // [nW, 1, P+N, P+N]
            logits.reshape((bw / nw, nw, heads, length, length))?.broadcast_add(&mask)?.reshape(scores.shape())?
        }
    };
    let inner = if scores.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let wide = logits.to_dtype(inner)?;
    // The shift by the maximum cancels, so it carries no gradient.
    let e = wide.broadcast_sub(&wide.detach().max_keepdim(D::Minus1)?)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.to_dtype(scores.dtype())
}

/// `[.., N, N]` to `[.., P+N, P+N]`, zero for the prompts.
fn after_prompts(x: &Tensor, p: usize) -> Result<Tensor> {
    if p == 0 { Ok(x.clone()) } else { x.pad_with_zeros(D::Minus1, p, 0)?.pad_with_zeros(D::Minus2, p, 0) }
}

struct AttentionSoftmax {
    mask: Option<Tensor>,
    scale: f64,
}

/// The sizes of a softmax, and where its rows lie.
#[derive(Clone, Copy)]
struct Rows {
    heads: usize,
    /// Patches N of a window.
    n: usize,
    /// Prompts and patches.
    length: usize,
}

impl Rows {
    fn of(scores: &Shape, bias: &Shape) -> Result<Self> {
        let ((_, heads, length, _), (_, n, _)) = (scores.dims4()?, bias.dims3()?);
        if bias.dims() != [heads, n, n] || scores.dims()[3] != length || n > length {
            candle_core::bail!("attention-softmax: a bias {bias:?} does not fit scores {scores:?}")
        }
        Ok(Self { heads, n, length })
    }

    /// Prompts before the patches.
    fn prompts(&self) -> usize {
        self.length - self.n
    }

    /// The row of a `[.., N, N]` array of `planes` that belongs to patch row `i` of plane `plane`.
    fn patch_row<'a, T>(&self, of: &'a [T], plane: usize, i: usize) -> &'a [T] {
        let start = (plane * self.n + i) * self.n;
        &of[start..start + self.n]
    }
}

impl CustomOp2 for AttentionSoftmax {
    fn name(&self) -> &'static str {
        "attention-softmax"
    }

    fn cpu_fwd(&self, s: &CpuStorage, ls: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(
            scores: &[T],
            bias: &[T],
            mask: Option<&Tensor>,
            scale: f64,
            rows: Rows,
        ) -> Result<CpuStorage> {
            let mask = mask.map(values::<T>).transpose()?;
            Ok(T::to_cpu_storage_owned(forward(scores, bias, mask.as_deref(), T::of(scale), rows)))
        }
        let rows = Rows::of(ls.shape(), lb.shape())?;
        let y = by_float!(s.dtype(), kernel(slice(s, ls)?, slice(b, lb)?, self.mask.as_ref(), self.scale, rows))?;
        Ok((y, ls.shape().clone()))
    }

    /// `dlogits = y (dy - Σ dy y)`, row by row; scores get it scaled, the bias its sum over windows.
    fn bwd(&self, scores: &Tensor, bias: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        fn kernel<T: Real>(y: &Tensor, dy: &Tensor, bias: &Tensor, scale: f64) -> Result<(Tensor, Option<Tensor>)> {
            let (rows, device) = (Rows::of(y.shape(), bias.shape())?, y.device());
            let (ys, dys) = (values::<T>(y)?, values::<T>(dy)?);
            let mut dlogits = vec![T::zero(); ys.len()];
            let length = rows.length;
            let triples = dlogits.par_chunks_mut(length).zip(ys.par_chunks(length)).zip(dys.par_chunks(length));
            triples.with_min_len(64).for_each(|((d, y), dy)| {
                let along = y.iter().zip(dy).map(|(y, dy)| *y * *dy).sum::<T>();
                d.iter_mut().zip(y).zip(dy).for_each(|((d, y), dy)| *d = *y * (*dy - along));
            });
            let dbias = bias.track_op().then(|| bias_gradient(&dlogits, rows));
            let dbias = dbias.map(|dbias| Tensor::from_vec(dbias, bias.shape(), device)).transpose()?;
            dlogits.par_iter_mut().with_min_len(1 << 14).for_each(|d| *d *= T::of(scale));
            Ok((Tensor::from_vec(dlogits, y.shape(), device)?, dbias))
        }
        let dy = dy.contiguous()?;
        let (dscores, dbias) = by_float!(scores.dtype(), kernel(y, &dy, bias, self.scale))?;
        Ok((Some(dscores), dbias))
    }
}

fn forward<T: Real>(scores: &[T], bias: &[T], mask: Option<&[T]>, scale: T, rows: Rows) -> Vec<T> {
    let Rows { heads, n, length } = rows;
    let p = rows.prompts();
    let windows = mask.map_or(1, |mask| mask.len() / (n * n));
    let mut out = vec![T::zero(); scores.len()];
    let planes = out.par_chunks_mut(length * length).zip(scores.par_chunks(length * length)).enumerate();
    planes.for_each(|(plane, (out, scores))| {
        for (i, (out, scores)) in out.chunks_exact_mut(length).zip(scores.chunks_exact(length)).enumerate() {
            out.iter_mut().zip(scores).for_each(|(out, score)| *out = *score * scale);
            if i >= p {
                let add = |out: &mut [T], row: &[T]| out.iter_mut().zip(row).for_each(|(out, v)| *out += *v);
                add(&mut out[p..], rows.patch_row(bias, plane % heads, i - p));
                if let Some(mask) = mask {
                    add(&mut out[p..], rows.patch_row(mask, plane / heads % windows, i - p));
                }
            }
            normalise(out);
        }
    });
    out
}

fn normalise<T: Real>(row: &mut [T]) {
    let highest = row.iter().copied().fold(T::neg_infinity(), num_traits::Float::max);
    let mut sum = T::zero();
    for v in row.iter_mut() {
        *v = (*v - highest).exp();
        sum += *v;
    }
    let scale = sum.recip();
    row.iter_mut().for_each(|v| *v *= scale);
}

/// The patch-patch part of the logits' gradient, summed over windows: `[nH, N, N]`.
fn bias_gradient<T: Real>(dlogits: &[T], rows: Rows) -> Vec<T> {
    let Rows { heads, n, length } = rows;
    let (p, windows) = (rows.prompts(), dlogits.len() / (heads * length * length));
    sum_rows(windows, heads * n * n, |window, sums| {
        for (row, sums) in sums.chunks_exact_mut(n).enumerate() {
            let (head, i) = (row / n, row % n);
            let start = ((window * heads + head) * length + p + i) * length + p;
            sums.iter_mut().zip(&dlogits[start..start + n]).for_each(|(sum, d)| *sum += *d);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn both_definitions_agree_in_values_and_gradients() -> Result<()> {
        let (bias, mask) = (normal(2, &[2, 4, 4])?, (normal(3, &[2, 4, 4])?.ge(0.)?.to_dtype(DType::F64)? * -3.)?);
        for (length, mask) in [(4, None), (6, Some(&mask)), (4, Some(&mask))] {
            let scores = normal(1, &[4, 2, length, length])?;
            let want = composed(&scores, &bias, mask, 0.5)?;
            close(&attention_softmax(&scores, &bias, mask, 0.5)?, &want, 1e-12)?;
            for softmax in [attention_softmax, composed] {
                check(&[&scores, &bias], |v| softmax(&v[0], &v[1], mask, 0.5))?;
            }
        }
        Ok(())
    }
}
