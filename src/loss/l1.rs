//! Absolute differences, for normals and depth.

use super::IGNORE;
use crate::ops;
use candle_core::{Result, Tensor};

/// The mean absolute difference, over valid values, of predicted normals brought to unit length.
///
/// `|n / sqrt(n·n + 1e-12) - label|`
///
/// # Shapes
/// `outputs` and `label` `[B, 3, H, W]`; a scalar comes back.
///
/// # Errors
/// Outputs and label of different shapes.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::loss::normals_l1;
/// let normal = |n: [f32; 3]| Tensor::new(&n, &Device::Cpu)?.reshape((1, 3, 1, 1));
/// let loss = normals_l1(&normal([0., 0., 5.])?, &normal([0., 0.6, 0.8])?)?;
/// assert!((loss.to_scalar::<f32>()? - 0.8 / 3.).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// The released code divides by `|n| + 1e-12`, whose gradient at length 0 is 1e12 and would leave nothing of all others
/// once clipped; here it is 1e6 at most, and values differ by less than f32 can tell from length 0.01 on.
pub fn normals_l1(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    ops::normals_l1(outputs, label, IGNORE)
}

/// The mean absolute difference over valid values.
///
/// `|outputs - label|`
///
/// # Shapes
/// `outputs` and `label` `[B, c, H, W]`, c = 1 for depth; a scalar comes back.
///
/// # Errors
/// Outputs and label of different shapes.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::loss::depth_l1;
/// let (depth, label) = (Tensor::new(&[[[[1f32, 9.]]]], &Device::Cpu)?, Tensor::new(&[[[[3f32, 255.]]]], &Device::Cpu)?);
/// assert_eq!(depth_l1(&depth, &label)?.to_scalar::<f32>()?, 2.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn depth_l1(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    ops::l1(outputs, label, IGNORE)
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
