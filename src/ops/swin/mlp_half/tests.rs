use super::{MlpHalf, MlpIntermediates};
use crate::ops::GradientCheckpointing;
use crate::ops::finite_difference::{check, close, normal};
use crate::ops::low_rank::kernel::UseOfW;
use crate::ops::{Definition, Dropout, LayerNorm, LowRankMap, LowRankPath};
use candle_core::{Result, Tensor};

fn map(seed: u64, n_in: usize, out: usize, dropout: Option<Dropout>) -> Result<LowRankMap> {
    let path = LowRankPath { a: normal(seed, &[2, n_in])?, b: normal(seed + 1, &[out, 2])?, scale: 0.5, dropout };
    Ok(LowRankMap { weight: normal(seed + 2, &[out, n_in])?, bias: Some(normal(seed + 3, &[out])?), path: Some(path) })
}

fn half(dropout: Option<Dropout>) -> Result<MlpHalf> {
    Ok(MlpHalf {
        x: normal(1, &[2, 5, 3])?,
        norm: LayerNorm::new(normal(3, &[3])?, normal(4, &[3])?),
        fc1: map(10, 3, 6, dropout)?,
        fc2: map(20, 6, 3, dropout)?,
        drop_path: Some(vec![0.5, 1.5]),
    })
}

/// All outputs in one tensor.
fn together(half: MlpHalf, use_of_w: UseOfW) -> Result<Tensor> {
    if use_of_w == UseOfW::WithPath {
        return half.forward();
    }
    let (y, MlpIntermediates { pre, post }) = half.forward_intermediates()?;
    Tensor::cat(&[y, pre, post].iter().map(|t| t.flatten_all()).collect::<Result<Vec<_>>>()?, 0)
}

#[test]
fn the_kernel_equals_its_composed_definition() -> Result<()> {
    for (use_of_w, dropout) in [(UseOfW::WithPath, None), (UseOfW::Alone, Some(Dropout { rate: 0.3, seed: 7 }))] {
        let half = half(dropout)?;
        let run = |by: Definition| by.run(|| together(half.clone(), use_of_w));
        let [fused, composed] = Definition::ALL.map(run);
        close(&fused?, &composed?, 1e-12)?;
    }
    Ok(())
}

#[test]
fn gradients_of_all_inputs_kept_or_made_again() -> Result<()> {
    for (use_of_w, dropout, checkpointing) in [
        (UseOfW::WithPath, None, GradientCheckpointing::Off),
        (UseOfW::WithPath, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
        (UseOfW::Alone, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
        (UseOfW::Alone, None, GradientCheckpointing::On),
    ] {
        let half = half(dropout)?;
        let (one, two) = (half.fc1.path.clone().unwrap(), half.fc2.path.clone().unwrap());
        let inputs = [
            &half.x,
            &half.norm.weight,
            &half.norm.bias,
            &one.a,
            &one.b,
            &two.a,
            &two.b,
            &half.fc1.weight,
            &half.fc2.weight,
        ];
        check(&inputs, |v| {
            let mut half = half.clone();
            (half.x, half.norm.weight, half.norm.bias) = (v[0].clone(), v[1].clone(), v[2].clone());
            half.fc1.path = Some(LowRankPath { a: v[3].clone(), b: v[4].clone(), ..one.clone() });
            half.fc2.path = Some(LowRankPath { a: v[5].clone(), b: v[6].clone(), ..two.clone() });
            (half.fc1.weight, half.fc2.weight) = (v[7].clone(), v[8].clone());
            checkpointing.run(|| together(half, use_of_w))
        })?;
    }
    Ok(())
}
