//! Fused losses against composed ones.

use super::*;
use crate::ops::Definition;
use crate::ops::finite_difference::{check, close, normal};
use candle_core::{Device, Var};

const IGNORE: f32 = 255.0;

/// A loss of outputs with so many channels.
struct Loss {
    channels: usize,
    label: Label,
    loss: fn(&Tensor, &Tensor) -> Result<Tensor>,
}

/// What a loss's labels are.
#[derive(Clone, Copy, PartialEq)]
enum Label {
    Classes,
    Binary,
    Values,
}

fn losses() -> Vec<Loss> {
    vec![
        Loss { channels: 5, label: Label::Classes, loss: |x, label| cross_entropy(x, label, IGNORE) },
        Loss { channels: 1, label: Label::Binary, loss: |x, label| balanced_bce(x, label, None, IGNORE) },
        Loss { channels: 1, label: Label::Binary, loss: |x, label| balanced_bce(x, label, Some(0.95), IGNORE) },
        Loss { channels: 1, label: Label::Values, loss: |x, label| l1(x, label, IGNORE) },
        Loss { channels: 3, label: Label::Values, loss: |x, label| normals_l1(x, label, IGNORE) },
    ]
}

impl Loss {
    fn outputs(&self, size: [usize; 2]) -> Result<Tensor> {
        normal(1, &[2, self.channels, size[0], size[1]])? * 3.0
    }

    /// Every fifth value is ignored.
    fn label(&self, size: [usize; 2]) -> Result<Tensor> {
        let channels = if self.label == Label::Values { self.channels } else { 1 };
        let values = (0..2 * channels * size[0] * size[1]).map(|i| match self.label {
            _ if i % 5 == 4 => IGNORE,
            Label::Classes => (i * 7 % 5) as f32,
            Label::Binary => (i % 3 / 2) as f32,
            Label::Values => (i % 17) as f32 * 0.1 - 0.73,
        });
        Tensor::from_iter(values, &Device::Cpu)?.reshape((2, channels, size[0], size[1]))
    }

    fn composed(&self, x: &Tensor, label: &Tensor) -> Result<Tensor> {
        Definition::Composed.run(|| (self.loss)(x, label))
    }

    /// Compares values and gradients of the two definitions.
    fn agree(&self, x: &Tensor, label: &Tensor) -> Result<()> {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let x = Var::from_tensor(&x.to_dtype(dtype)?)?;
            let [got, want] = Definition::ALL.map(|definition| definition.run(|| (self.loss)(&x, label)));
            let (got, want) = (got?, want?);
            close(&got, &want, tolerance)?;
            let gradient = |loss: &Tensor| Ok::<_, candle_core::Error>((loss * 3.0)?.backward()?.remove(&x).unwrap());
            close(&gradient(&got)?, &gradient(&want)?, tolerance)?;
        }
        Ok(())
    }
}

#[test]
fn both_definitions_agree_over_several_blocks() -> Result<()> {
    for loss in losses() {
        for size in [[1, 1], [7, 9], [32, 32], [50, 45]] {
            let (x, label) = (loss.outputs(size)?, loss.label(size)?);
            loss.agree(&x, &label)?;
            loss.agree(&x.zeros_like()?, &label)?;
            loss.agree(&x, &(label.ones_like()? * f64::from(IGNORE))?)?;
            loss.agree(&(x * 40.0)?, &label)?;
        }
    }
    Ok(())
}

#[test]
fn gradients_of_both_definitions() -> Result<()> {
    for loss in losses() {
        let (x, label) = (loss.outputs([2, 3])?, loss.label([2, 3])?);
        for definition in Definition::ALL {
            check(&[&x], |v| definition.run(|| (loss.loss)(&v[0], &label)))?;
        }
    }
    Ok(())
}

#[test]
fn views_and_labels_of_other_types_are_taken() -> Result<()> {
    for loss in losses() {
        let (x, label) = (loss.outputs([6, 6])?, loss.label([6, 6])?);
        let want = loss.composed(&x.t()?.contiguous()?, &label.t()?.contiguous()?)?;
        close(&(loss.loss)(&x.t()?, &label.t()?)?, &want, 1e-12)?;
        close(
            &(loss.loss)(&x.to_dtype(DType::F32)?, &label.to_dtype(DType::F64)?)?.to_dtype(DType::F64)?,
            &loss.composed(&x, &label)?,
            1e-6,
        )?;
    }
    Ok(())
}

#[test]
fn maps_of_different_sizes_are_refused() -> Result<()> {
    for loss in losses() {
        assert!((loss.loss)(&loss.outputs([4, 4])?, &loss.label([4, 3])?).is_err());
    }
    Ok(())
}

#[test]
fn the_first_label_that_is_no_class_is_named_wherever_it_is() -> Result<()> {
    let x = Tensor::zeros((1, 3, 60, 60), DType::F32, &Device::Cpu)?;
    for (definition, at) in Definition::ALL.into_iter().flat_map(|definition| [(definition, 7), (definition, 3000)]) {
        let mut values = vec![IGNORE; 3600];
        (values[at], values[3599]) = (5.0, 7.0);
        let label = Tensor::from_vec(values, (1, 1, 60, 60), &Device::Cpu)?;
        let message = match definition.run(|| cross_entropy(&x, &label, IGNORE)) {
            Err(message) => message,
            Ok(loss) => {
                assert!(definition == Definition::Composed && loss.to_scalar::<f32>()?.is_nan());
                check_classes(&label, 3, IGNORE).unwrap_err()
            }
        };
        assert!(message.to_string().contains("0 to 2 or 255, got 5"), "{message}");
    }
    Ok(())
}

#[test]
fn scores_that_are_no_numbers_show_in_the_loss() -> Result<()> {
    for loss in losses() {
        let nan = (loss.outputs([4, 4])?.to_dtype(DType::F32)? * f64::NAN)?;
        assert!((loss.loss)(&nan, &loss.label([4, 4])?)?.to_scalar::<f32>()?.is_nan());
    }
    Ok(())
}
