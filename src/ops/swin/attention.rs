//! Attention inside windows, with prompts before the tokens.

use super::softmax::attention_softmax;
use crate::ops::matmul::matmul;
use crate::ops::shapes::Shapes;
use candle_core::{Result, Tensor};

/// What [`window_attention`] gives.
pub struct Attention {
    /// `[B*nW, P+N, C]`: the prompts' rows first.
    pub tokens: Tensor,
    /// `[B*nW, nH, P, N]`: the unscaled scores `q kᵀ` of prompts with patches; `None` without prompts.
    pub prompt_scores: Option<Tensor>,
}

/// Attention inside windows, for prompts and patches together.
///
/// `softmax(q kᵀ / sqrt(C/nH) + bias + mask) v` for each head and window.
///
/// Bias and mask touch the patch-patch part alone: prompts attend, and are attended to, freely.
///
/// # Shapes
/// `qkv` `[B*nW, P+N, 3C]`, each window's prompts first; `bias` `[nH, N, N]`; `mask` `[nW, N, N]` or none; P follows from the two.
///
/// # Errors
/// Tensors whose shapes or float types do not fit; the mask, which is a constant, may be of any float type.
pub fn window_attention(qkv: &Tensor, bias: &Tensor, mask: Option<&Tensor>) -> Result<Attention> {
    let shapes = Shapes::of("window-attention", qkv)?;
    let ([bw, length, c3], [heads, n, _]) = (shapes.sizes("qkv", qkv)?, shapes.sizes("a bias", bias)?);
    shapes.expect("a bias", bias, &[heads, n, n])?;
    shapes.times("channels of queries, keys and values", c3, 3 * heads)?;
    if n > length {
        candle_core::bail!("window-attention: expected at least {n} rows of a window, got {length}")
    }
    if let Some(mask) = mask {
        let windows = mask.dim(0)?;
        shapes.times("windows of all images", bw, windows)?;
        shapes.stored("a mask", mask, &[windows, n, n])?;
    }
    let (p, head_dim) = (length - n, c3 / 3 / heads);
    let qkv = qkv.reshape((bw, length, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?; // [3, B*nW, nH, P+N, d]
    let part = |i: usize| qkv.get(i)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = matmul(&q, &k.transpose(2, 3)?)?; // [B*nW, nH, P+N, P+N]
    let weights = attention_softmax(&scores, bias, mask, (head_dim as f64).powf(-0.5))?;
    let tokens = matmul(&weights, &v)?.transpose(1, 2)?.reshape((bw, length, heads * head_dim))?;
    let prompt_scores = if p == 0 { None } else { Some(scores.narrow(2, 0, p)?.narrow(3, p, n)?) };
    Ok(Attention { tokens, prompt_scores })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::DType;

    #[test]
    fn a_bias_larger_than_the_window_is_refused() -> Result<()> {
        let refuse = |rows, channels, bias: &[usize]| -> Result<String> {
            let attention = window_attention(&normal(1, &[2, rows, channels])?, &normal(2, bias)?, None);
            Ok(attention.map(|_| ()).unwrap_err().to_string())
        };
        assert!(refuse(3, 12, &[2, 4, 4])?.contains("at least 4 rows"));
        assert!(refuse(4, 12, &[2, 4, 3])?.contains("a bias [2, 4, 4]"));
        assert!(refuse(4, 12, &[0, 4, 4])?.contains("above 0, got [0, 4, 4]"));
        Ok(())
    }

    #[test]
    fn gradients_with_and_without_prompts_and_mask() -> Result<()> {
        let (bias, mask) = (normal(2, &[2, 4, 4])?, (normal(3, &[2, 4, 4])?.ge(0.)?.to_dtype(DType::F64)? * -3.)?);
        for (length, mask) in [(4, None), (6, Some(&mask))] {
            let qkv = normal(1, &[2, length, 12])?;
            check(&[&qkv, &bias], |v| Ok(window_attention(&v[0], &v[1], mask)?.tokens))?;
        }
        let qkv = normal(1, &[1, 6, 12])?;
        check(&[&qkv], |v| window_attention(&v[0], &bias, None)?.prompt_scores.unwrap().contiguous())
    }

    #[test]
    fn a_constant_bias_changes_nothing_without_prompts() -> Result<()> {
        let (qkv, bias) = (normal(1, &[2, 4, 12])?, Tensor::zeros((2, 4, 4), DType::F64, &candle_core::Device::Cpu)?);
        let plain = window_attention(&qkv, &bias, None)?.tokens;
        close(&window_attention(&qkv, &(bias + 7.)?, None)?.tokens, &plain, 1e-12)
    }
}
