//! Balanced binary cross entropy, for saliency and edges.

use super::IGNORE;
use crate::ops;
use candle_core::{Result, Tensor};

/// How much a positive pixel weighs in [`balanced_bce`]; a negative one weighs the rest to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PositiveWeight {
    /// The share of negatives among the batch's valid pixels.
    ShareOfNegatives,
    /// Always this.
    Fixed(f64),
}

/// Binary cross entropy of scores in which the rarer kind of pixel can weigh more.
///
/// `Σ (w y softplus(-x) + (1 - w) (1 - y) softplus(x)) / N`, N the number of valid pixels.
///
/// # Shapes
/// `outputs` and `label` `[B, 1, H, W]`, labels 0 and 1 (parted at 0.5) or 255; a scalar comes back.
///
/// # Errors
/// Outputs and label of different shapes; a label on the CPU that holds NaN or infinity: on another device the loss is NaN.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::loss::{PositiveWeight, balanced_bce};
/// let (scores, label) = (Tensor::new(&[[[[0f32, 3.]]]], &Device::Cpu)?, Tensor::new(&[[[[1f32, 255.]]]], &Device::Cpu)?);
/// let loss = balanced_bce(&scores, &label, PositiveWeight::Fixed(0.95))?;
/// assert!((loss.to_scalar::<f32>()? - 0.95 * 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// The released losses know no ignore; here ignored pixels leave the sum, the share and the count.
pub fn balanced_bce(outputs: &Tensor, label: &Tensor, weight: PositiveWeight) -> Result<Tensor> {
    let fixed = match weight {
        PositiveWeight::ShareOfNegatives => None,
        PositiveWeight::Fixed(weight) => Some(weight),
    };
    ops::balanced_bce(outputs, label, fixed, IGNORE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, normal};
    use candle_core::Device;

    fn map(values: &[f32]) -> Result<Tensor> {
        Tensor::new(values, &Device::Cpu)?.reshape((1, 1, 1, values.len()))
    }

    #[test]
    fn gradient_with_either_weight_and_ignored_pixels() -> Result<()> {
        let label = map(&[1., 0., 255., 0.])?;
        for weight in [PositiveWeight::ShareOfNegatives, PositiveWeight::Fixed(0.95)] {
            check(&[&normal(1, &[1, 1, 1, 4])?], |v| balanced_bce(&v[0], &label, weight))?;
        }
        Ok(())
    }

    #[test]
    fn values_by_hand() -> Result<()> {
        let loss = |x: &[f32], y: &[f32], weight| balanced_bce(&map(x)?, &map(y)?, weight)?.to_scalar::<f32>();
        let ln2 = 2f32.ln();
        let shared = loss(&[0., 0., 0., 7.], &[1., 0., 0., 255.], PositiveWeight::ShareOfNegatives)?;
        assert!((shared - (2. / 3. * ln2 + 2. * ln2 / 3.) / 3.).abs() < 1e-6, "{shared}");
        assert!((loss(&[0., 0.], &[1., 0.], PositiveWeight::Fixed(0.95))? - ln2 / 2.).abs() < 1e-6);
        assert_eq!(loss(&[3.], &[255.], PositiveWeight::Fixed(0.95))?, 0.0);
        let large = loss(&[-200., 200.], &[1., 1.], PositiveWeight::Fixed(0.5))?;
        assert!((large - 50.).abs() < 1e-3, "{large}");
        Ok(())
    }
}
