//! What every kind's loss owes: gradients, ignored pixels, empty batches, half precision, long sums.

use super::*;
use crate::ops::Definition;
use crate::ops::finite_difference::{check, normal};
use crate::sample::IGNORE;
use crate::task::TaskKind;
use candle_core::{DType, Device, Result, Tensor, Var};

/// Outputs a kind has in these tests.
fn channels(kind: TaskKind) -> usize {
    if kind.is_classes() || kind == TaskKind::Normals { 3 } else { 1 }
}

/// A label of `[2, c, 2, 3]` with values of the kind; the last column is ignored.
fn label(kind: TaskKind) -> Result<Tensor> {
    let c = kind.label_channels();
    let values = (0..2 * c * 6).map(|i| match kind {
        _ if i % 3 == 2 => IGNORE,
        TaskKind::Normals | TaskKind::Depth => 0.3 + 0.1 * i as f32,
        TaskKind::Sal | TaskKind::Edge => (i % 2) as f32,
        TaskKind::Semseg | TaskKind::HumanParts => ((i * 2) % 3) as f32,
    });
    Tensor::from_iter(values, &Device::Cpu)?.reshape((2, c, 2, 3))
}

fn outputs(kind: TaskKind) -> Result<Tensor> {
    normal(kind as u64, &[2, channels(kind), 2, 3])
}

fn gradient(loss: &Tensor, of: &Var) -> Result<Vec<f64>> {
    loss.backward()?.get(of).unwrap().to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

#[test]
fn gradients_of_every_kind() -> Result<()> {
    for &kind in TaskKind::ALL {
        check(&[&outputs(kind)?], |v| task_loss(kind, &v[0], &label(kind)?))?;
    }
    Ok(())
}

#[test]
fn an_ignored_pixel_counts_for_nothing() -> Result<()> {
    for &kind in TaskKind::ALL {
        let (outputs, label) = (outputs(kind)?, label(kind)?);
        let whole = task_loss(kind, &outputs, &label)?.to_scalar::<f64>()?;
        let without = task_loss(kind, &outputs.narrow(3, 0, 2)?, &label.narrow(3, 0, 2)?)?.to_scalar::<f64>()?;
        assert!((whole - without).abs() < 1e-12, "{kind:?}: {whole} is not {without}");
    }
    Ok(())
}

#[test]
fn a_batch_without_a_valid_pixel_costs_nothing_and_moves_nothing() -> Result<()> {
    for &kind in TaskKind::ALL {
        let (outputs, ignored) = (Var::from_tensor(&outputs(kind)?)?, (label(kind)?.ones_like()? * 255.0)?);
        let loss = task_loss(kind, &outputs, &ignored)?;
        assert_eq!(loss.to_scalar::<f64>()?, 0.0, "{kind:?}");
        assert!(gradient(&loss, &outputs)?.iter().all(|g| *g == 0.0), "{kind:?}");
    }
    Ok(())
}

/// A NaN in a mask was taken for 0.
#[test]
fn no_loss_makes_a_number_of_what_is_none() -> Result<()> {
    let spoil = |map: Tensor, value: f64| -> Result<Tensor> {
        let mut values = map.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        values[0] = value;
        Tensor::from_vec(values, map.dims(), &Device::Cpu)
    };
    let each = |&kind| Definition::ALL.map(|definition| (kind, definition));
    for (kind, definition) in TaskKind::ALL.iter().flat_map(each) {
        for wrong in [f64::NAN, f64::INFINITY] {
            let label = spoil(label(kind)?, wrong)?;
            let loss = definition.run(|| task_loss(kind, &outputs(kind)?, &label)?.to_scalar::<f64>());
            assert!(loss.as_ref().map_or(true, |loss| !loss.is_finite()), "{kind:?} {definition:?}: {loss:?}");
        }
        let outputs = spoil(outputs(kind)?, f64::NAN)?;
        let loss = definition.run(|| task_loss(kind, &outputs, &label(kind)?)?.to_scalar::<f64>())?;
        assert!(loss.is_nan(), "{kind:?} {definition:?}: {loss}");
    }
    Ok(())
}

#[test]
fn half_precision_is_computed_in_f32() -> Result<()> {
    for (kind, dtype) in TaskKind::ALL.iter().flat_map(|&kind| [(kind, DType::F16), (kind, DType::BF16)]) {
        let (half, label) = (Var::from_tensor(&outputs(kind)?.to_dtype(dtype)?)?, label(kind)?);
        let loss = task_loss(kind, &half, &label)?;
        let want = task_loss(kind, &half.to_dtype(DType::F64)?, &label)?.to_scalar::<f64>()?;
        let got = f64::from(loss.to_scalar::<f32>()?);
        assert!((got - want).abs() < 1e-6 * want, "{kind:?} {dtype:?}: {got} is not {want}");
        assert!(gradient(&loss, &half)?.iter().all(|g| g.is_finite()), "{kind:?} {dtype:?}");
    }
    Ok(())
}

#[test]
fn a_mean_over_many_pixels_stays_exact_in_f32() -> Result<()> {
    // 24 million values; candle's `sum_all` is 0.75 % off here.
    let (x, label) = (Tensor::full(0.3f32, (3, 3, 1632, 1632), &Device::Cpu)?, 0.1f32);
    let label = Tensor::full(label, x.dims(), &Device::Cpu)?;
    let got = depth_l1(&x, &label)?.to_scalar::<f32>()?;
    assert!((got - 0.2).abs() < 1e-6, "{got}");
    Ok(())
}

#[test]
fn where_prediction_and_label_are_equal_nothing_pulls() -> Result<()> {
    let x = Var::new(&[[[[2f32, 3.]]]], &Device::Cpu)?;
    let loss = depth_l1(&x, &Tensor::new(&[[[[2f32, 1.]]]], &Device::Cpu)?)?;
    assert_eq!(gradient(&loss, &x)?, [0.0, 0.5]);
    Ok(())
}

#[test]
fn the_gradient_of_bce_at_zero_is_half_the_weight() -> Result<()> {
    let x = Var::zeros((1, 1, 1, 2), DType::F64, &Device::Cpu)?;
    let label = Tensor::new(&[[[[1f32, 0.]]]], &Device::Cpu)?;
    let loss = balanced_bce(&x, &label, PositiveWeight::Fixed(0.75))?;
    assert_eq!(gradient(&loss, &x)?, [-0.75 / 4.0, 0.25 / 4.0]);
    Ok(())
}

#[test]
fn the_gradient_at_length_zero_is_bounded() -> Result<()> {
    let x = Var::zeros((1, 3, 1, 1), DType::F32, &Device::Cpu)?;
    let loss = normals_l1(&x, &Tensor::new(&[0f32, 0., 1.], &Device::Cpu)?.reshape((1, 3, 1, 1))?)?;
    let steepest = gradient(&loss, &x)?.into_iter().fold(0.0f64, |m, g| m.max(g.abs()));
    assert!(steepest > 0.0 && steepest <= 1e6, "{steepest:e}");
    Ok(())
}
