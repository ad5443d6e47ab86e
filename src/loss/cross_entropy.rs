//! Cross entropy over classes, for segmentation and human parts.

use super::IGNORE;
use crate::finite::is_finite;
use crate::ops;
use candle_core::{Result, Tensor};

/// The mean over valid pixels of how improbable the scores make the right class.
///
/// `-log softmax(outputs)[label]`
///
/// # Shapes
/// `outputs` `[B, n, H, W]`, `label` `[B, 1, H, W]` with values 0 to n-1 or 255; a scalar comes back.
///
/// # Errors
/// Outputs and label of different sizes; a label that is neither a class nor 255: too large, negative, between two classes, no number.
/// Looking costs one number read back from the device.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::loss::cross_entropy;
/// let scores = Tensor::zeros((1, 4, 1, 2), DType::F32, &Device::Cpu)?;
/// let loss = cross_entropy(&scores, &Tensor::new(&[[[[3f32, 255.]]]], &Device::Cpu)?)?;
/// assert!((loss.to_scalar::<f32>()? - 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn cross_entropy(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    let loss = unread(outputs, label)?;
    if !is_finite(&loss)? {
        check_label(label, outputs.dim(1)?)?;
    }
    Ok(loss)
}

/// [`cross_entropy`] that waits for no device: a label that is no class may make it NaN there, and [`check_label`] finds which.
pub(super) fn unread(outputs: &Tensor, label: &Tensor) -> Result<Tensor> {
    ops::cross_entropy(outputs, label, IGNORE)
}

/// Reads a label, and refuses what is neither one of so many classes nor 255.
pub(super) fn check_label(label: &Tensor, classes: usize) -> Result<()> {
    ops::check_classes(label, classes, IGNORE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, normal};
    use candle_core::{DType, Device};

    #[test]
    fn gradient_with_ignored_pixels() -> Result<()> {
        let label = Tensor::new(&[0f32, 2., 255., 1.], &Device::Cpu)?.reshape((1, 1, 2, 2))?;
        check(&[&normal(1, &[1, 3, 2, 2])?], |v| cross_entropy(&v[0], &label))
    }

    #[test]
    fn ignored_pixels_leave_sum_and_count() -> Result<()> {
        let outputs = Tensor::new(&[0f32, 9., 0., -9.], &Device::Cpu)?.reshape((1, 2, 1, 2))?;
        let label = Tensor::new(&[1f32, 255.], &Device::Cpu)?.reshape((1, 1, 1, 2))?;
        assert!((cross_entropy(&outputs, &label)?.to_scalar::<f32>()? - 2f32.ln()).abs() < 1e-6);
        assert_eq!(cross_entropy(&outputs, &label.ones_like()?.affine(255., 0.)?)?.to_scalar::<f32>()?, 0.0);
        Ok(())
    }

    #[test]
    fn a_label_that_is_no_class_is_named() -> Result<()> {
        let outputs = Tensor::zeros((1, 2, 1, 1), DType::F32, &Device::Cpu)?;
        for (value, text) in [(2f32, "got 2"), (-1.0, "got -1"), (0.5, "got 0.5"), (f32::NAN, "got NaN")] {
            let label = Tensor::new(&[[[[value]]]], &Device::Cpu)?;
            for by in Definition::ALL {
                let message = by.run(|| cross_entropy(&outputs, &label)).unwrap_err().to_string();
                assert!(message.contains(text) && message.contains("0 to 1 or 255"), "{message}");
            }
        }
        Ok(())
    }
}
