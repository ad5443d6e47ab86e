//! Both definitions, their gradients, and what is made again.

use super::*;
use crate::ops::GradientCheckpointing;
use crate::ops::finite_difference::{check, close, normal};
use crate::ops::low_rank::kernel::UseOfW;
use crate::ops::{Definition, Dropout};
use crate::ops::{LayerNorm, LowRankMap, WindowGrid};
use crate::ops::{LowRankPath, shift_mask};
use candle_core::Device;
use candle_core::{Result, Tensor};

fn map(seed: u64, n_in: usize, out: usize, dropout: Option<Dropout>) -> Result<LowRankMap> {
    let path = LowRankPath { a: normal(seed, &[2, n_in])?, b: normal(seed + 1, &[out, 2])?, scale: 0.5, dropout };
    Ok(LowRankMap { weight: normal(seed + 2, &[out, n_in])?, bias: Some(normal(seed + 3, &[out])?), path: Some(path) })
}

/// A shifted, padded map of two images, with two prompts where they are asked for.
fn half(prompts: bool, dropout: Option<Dropout>) -> Result<AttentionHalf> {
    let grid = WindowGrid::new((3, 5), 2, true)?;
    Ok(AttentionHalf {
        patches: normal(1, &[2, 15, 4])?,
        prompts: if prompts { Some(normal(2, &[2, 2, 4])?) } else { None },
        grid,
        norm: LayerNorm::new(normal(3, &[4])?, normal(4, &[4])?),
        qkv: map(10, 4, 12, dropout)?,
        bias: normal(5, &[2, 4, 4])?,
        mask: shift_mask(&grid, &Device::Cpu)?.map(|mask| mask.to_dtype(candle_core::DType::F64)).transpose()?,
        proj: map(20, 4, 4, dropout)?,
        drop_path: Some(vec![0.0, 1.5]),
    })
}

/// All outputs in one tensor.
fn together(half: AttentionHalf, use_of_w: UseOfW) -> Result<Tensor> {
    let (Attended { patches, prompts }, intermediates) = match use_of_w {
        UseOfW::WithPath => (half.forward()?, None),
        UseOfW::Alone => half.forward_intermediates().map(|(attended, values)| (attended, Some(values)))?,
    };
    let mut all = vec![patches];
    all.extend(prompts);
    if let Some(AttentionIntermediates { attended, projected, prompt_scores }) = intermediates {
        all.extend([attended, projected]);
        all.extend(prompt_scores);
    }
    Tensor::cat(&all.iter().map(|t| t.flatten_all()).collect::<Result<Vec<_>>>()?, 0)
}

#[test]
fn the_kernel_equals_its_composed_definition() -> Result<()> {
    let dropout = Some(Dropout { rate: 0.3, seed: 7 });
    for (prompts, use_of_w, dropout) in [
        (false, UseOfW::WithPath, None),
        (true, UseOfW::WithPath, None),
        (true, UseOfW::Alone, dropout),
        (false, UseOfW::Alone, None),
    ] {
        let half = half(prompts, dropout)?;
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
        (UseOfW::Alone, Some(Dropout { rate: 0.3, seed: 7 }), GradientCheckpointing::Off),
        (UseOfW::Alone, None, GradientCheckpointing::On),
    ] {
        let half = half(true, dropout)?;
        let prompts = half.prompts.clone().unwrap();
        let (qkv, proj) = (half.qkv.path.clone().unwrap(), half.proj.path.clone().unwrap());
        let inputs = [
            &half.patches,
            &prompts,
            &half.norm.weight,
            &half.norm.bias,
            &half.bias,
            &qkv.a,
            &qkv.b,
            &proj.a,
            &proj.b,
            &half.proj.weight,
            half.qkv.bias.as_ref().unwrap(),
        ];
        check(&inputs, |v| {
            let mut half = half.clone();
            (half.patches, half.prompts) = (v[0].clone(), Some(v[1].clone()));
            (half.norm.weight, half.norm.bias, half.bias) = (v[2].clone(), v[3].clone(), v[4].clone());
            half.qkv.path = Some(LowRankPath { a: v[5].clone(), b: v[6].clone(), ..qkv.clone() });
            half.proj.path = Some(LowRankPath { a: v[7].clone(), b: v[8].clone(), ..proj.clone() });
            (half.proj.weight, half.qkv.bias) = (v[9].clone(), Some(v[10].clone()));
            checkpointing.run(|| together(half, use_of_w))
        })?;
    }
    Ok(())
}
