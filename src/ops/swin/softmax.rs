//! The softmax of window attention: scaled, biased, masked.

use candle_core::{D, DType, Result, Tensor};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, normal};

    #[test]
    fn rows_sum_to_one_and_gradients_agree_with_finite_differences() -> Result<()> {
        let (bias, mask) = (normal(2, &[2, 4, 4])?, (normal(3, &[2, 4, 4])?.ge(0.)?.to_dtype(DType::F64)? * -3.)?);
        for (length, mask) in [(4, None), (6, Some(&mask)), (4, Some(&mask))] {
            let scores = normal(1, &[4, 2, length, length])?;
            let sums = attention_softmax(&scores, &bias, mask, 0.5)?.sum(D::Minus1)?.flatten_all()?.to_vec1::<f64>()?;
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12));
            check(&[&scores, &bias], |v| attention_softmax(&v[0], &v[1], mask, 0.5))?;
        }
        Ok(())
    }
}
