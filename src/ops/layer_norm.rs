//! Layer normalisation over the last dimension.

use candle_core::{D, DType, Result, Tensor};

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, mean and biased variance over the channels.
///
/// # Shapes
/// `x` `[.., C]`, `weight` and `bias` `[C]`, result `[.., C]`.
///
/// Half precision is normalised in f32. Candle's fast layer norm has no backward; this has.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let wide = x.to_dtype(inner)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&deviation)?.to_dtype(x.dtype())?.broadcast_mul(weight)?.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients() -> Result<()> {
        let x = Tensor::new(&[[1.0f64, 3.0]], &candle_core::Device::Cpu)?;
        let (w, b) = (Tensor::new(&[2.0f64, 2.0], x.device())?, Tensor::new(&[0.5f64, 0.5], x.device())?);
        close(&layer_norm(&x, &w, &b, 0.0)?, &Tensor::new(&[[-1.5f64, 2.5]], x.device())?, 1e-12)?;
        let (x, w, b) = (normal(1, &[2, 3, 4])?, normal(2, &[4])?, normal(3, &[4])?);
        check(&[&x, &w, &b], |v| layer_norm(&v[0], &v[1], &v[2], 1e-5))
    }
}
