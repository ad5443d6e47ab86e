//! Absolute differences, for normals and depth.

use super::{masked, mean_over, wide};
use candle_core::{Result, Tensor};

/// `|n / |n| - label|`, mean over valid values, the prediction brought to unit length.
///
/// # Shapes
/// `outputs` and `label` `[B, 3, H, W]`.
///
/// A prediction of length 0 stays 0 and has a finite gradient: the length is at least 1e-12, as in PyTorch's normalize.
pub fn normals_l1(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    let x = wide(outputs)?;
    let square = x.sqr()?.sum_keepdim(1)?;
    let unit = x.broadcast_div(&square.maximum(1e-24)?.sqrt()?)?;
    mean_difference(&unit, label)
}

/// `|outputs - label|`, mean over valid pixels.
///
/// # Shapes
/// `outputs` and `label` `[B, 1, H, W]`.
pub fn depth_l1(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    mean_difference(&wide(outputs)?, label)
}

fn mean_difference(x: &Tensor, label: &Tensor) -> Result<Tensor> {
    let (label, mask) = masked(label, x.dtype())?;
    mean_over(&((x - label)?.abs()? * &mask)?.sum_all()?, &mask.sum_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, normal};
    use candle_core::{DType, Device, Var};

    #[test]
    fn gradients_with_ignored_pixels() -> Result<()> {
        let label = normal(2, &[1, 3, 1, 2])?.to_dtype(DType::F32)?;
        let label = Tensor::cat(&[&label, &(label.ones_like()? * 255.)?], 3)?;
        check(&[&normal(1, &[1, 3, 1, 4])?], |v| normals_l1(&v[0], &label))?;
        check(&[&normal(1, &[1, 1, 1, 4])?], |v| depth_l1(&v[0], &label.narrow(1, 0, 1)?))
    }

    #[test]
    fn a_prediction_of_length_zero_has_a_finite_gradient() -> Result<()> {
        let x = Var::zeros((1, 3, 1, 1), DType::F32, &Device::Cpu)?;
        let label = Tensor::new(&[0f32, 0., 1.], &Device::Cpu)?.reshape((1, 3, 1, 1))?;
        let loss = normals_l1(x.as_tensor(), &label)?;
        assert!((loss.to_scalar::<f32>()? - 1. / 3.).abs() < 1e-6);
        let grad = loss.backward()?.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
        assert!(grad.iter().all(|v| v.is_finite()), "{grad:?}");
        Ok(())
    }

    #[test]
    fn a_batch_without_valid_pixels_costs_nothing() -> Result<()> {
        let x = Var::ones((1, 3, 1, 2), DType::F32, &Device::Cpu)?;
        let loss = normals_l1(x.as_tensor(), &(x.as_tensor() * 255.)?.detach())?;
        assert_eq!(loss.to_scalar::<f32>()?, 0.0);
        let grad = loss.backward()?.get(&x).unwrap().flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(grad, [0.0; 6]);
        Ok(())
    }
}
