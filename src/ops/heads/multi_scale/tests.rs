use super::*;
use crate::ops::Definition;
use crate::ops::finite_difference::{check, close, normal};
use candle_core::{DType, Var};

/// Odd sizes, two maps of one coarse size, and one of the finest size after the coarser ones.
const SIZES: [((usize, usize), usize); 5] = [((5, 7), 3), ((3, 4), 2), ((2, 2), 4), ((5, 7), 1), ((2, 2), 2)];
const HIDDEN: usize = 6;
const OUTPUTS: usize = 3;

/// Maps, hidden weight and bias, norm weight and bias, output weight and bias.
fn inputs(images: usize) -> Result<Vec<Tensor>> {
    let maps = SIZES.map(|(size, c)| vec![images, size.0 * size.1, c]);
    let channels = SIZES.iter().map(|(_, c)| c).sum();
    let weights =
        [vec![HIDDEN, channels], vec![HIDDEN], vec![HIDDEN], vec![HIDDEN], vec![OUTPUTS, HIDDEN], vec![OUTPUTS]];
    maps.into_iter().chain(weights).enumerate().map(|(i, dims)| normal(i as u64, &dims)).collect()
}

fn given() -> Result<MomentsOf> {
    let (mean, variance) = (normal(20, &[HIDDEN])?, (normal(21, &[HIDDEN])?.sqr()? + 0.5)?);
    Ok(MomentsOf::Given(BatchMoments { mean, variance }))
}

fn head(v: &[Tensor], moments: &MomentsOf) -> MultiScaleHead {
    let map = |(tokens, (size, _)): (&Tensor, ((usize, usize), usize))| FeatureMap { tokens: tokens.clone(), size };
    let (maps, weights) = v.split_at(SIZES.len());
    let conv = |i: usize| Conv1x1 { weight: weights[i].clone(), bias: weights[i + 1].clone() };
    let (weight, bias) = (weights[2].clone(), weights[3].clone());
    let norm = BatchNorm { weight, bias, moments: moments.clone(), eps: 1e-5 };
    MultiScaleHead {
        maps: maps.iter().zip(SIZES).map(map).collect(),
        hidden: conv(0),
        norm,
        dropped: None,
        output: conv(4),
    }
}

#[test]
fn both_definitions_agree_in_values_and_moments() -> Result<()> {
    for moments in [given()?, MomentsOf::Batch] {
        for images in [1, 3] {
            let v = inputs(images)?;
            let run = |by: Definition| by.run(|| head(&v, &moments).forward());
            let ((got, of), (want, of_want)) = (run(Definition::Fused)?, run(Definition::Composed)?);
            close(&got, &want, 1e-12)?;
            close(&of.mean, &of_want.mean, 1e-12)?;
            close(&of.variance, &of_want.variance, 1e-12)?;
            let v = v.iter().map(|t| t.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
            let moments = match &moments {
                MomentsOf::Batch => MomentsOf::Batch,
                MomentsOf::Given(BatchMoments { mean, variance }) => MomentsOf::Given(BatchMoments {
                    mean: mean.to_dtype(DType::F32)?,
                    variance: variance.to_dtype(DType::F32)?,
                }),
            };
            close(&head(&v, &moments).forward()?.0, &want, 1e-5)?;
        }
    }
    Ok(())
}

/// Each input's gradient of the sum of `c y`.
fn gradients(v: &[Tensor], y: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let vars = v.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let y = y(&vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>())?;
    let grads = (&y * normal(99, y.dims())?.to_dtype(y.dtype())?)?.sum_all()?.backward()?;
    Ok(vars.iter().map(|var| grads.get(var).unwrap().clone()).collect())
}

#[test]
fn both_definitions_agree_in_gradients() -> Result<()> {
    for moments in [given()?, MomentsOf::Batch] {
        let v = inputs(3)?;
        let got = gradients(&v, |v| Ok(head(v, &moments).forward()?.0))?;
        let want = gradients(&v, |v| Definition::Composed.run(|| Ok(head(v, &moments).forward()?.0)))?;
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            if i == SIZES.len() + 1 && matches!(moments, MomentsOf::Batch) {
                // What is added to all values, the batch's mean takes away.
                assert!(got.to_vec1::<f64>()?.iter().all(|v| v.abs() < 1e-10));
            } else {
                close(got, want, 1e-10)?;
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_agree_with_finite_differences() -> Result<()> {
    let v = inputs(2)?;
    check(&v.iter().collect::<Vec<_>>(), |v| Ok(head(v, &given()?).forward()?.0))?;
    // The hidden bias has no gradient here, so that no difference is to be had either.
    let without: Vec<&Tensor> = v.iter().enumerate().filter(|(i, _)| *i != SIZES.len() + 1).map(|(_, t)| t).collect();
    check(&without, |w| {
        let mut all = w.to_vec();
        all.insert(SIZES.len() + 1, v[SIZES.len() + 1].clone());
        Ok(head(&all, &MomentsOf::Batch).forward()?.0)
    })
}

#[test]
fn dropped_channels_of_each_image_give_nothing_and_get_nothing() -> Result<()> {
    let factors: Vec<f64> = (0..2 * HIDDEN).map(|i| [0.0, 1.25, 2.0, 0.0, 0.5][i % 5]).collect();
    for moments in [given()?, MomentsOf::Batch] {
        let v = inputs(2)?;
        let dropping = |v: &[Tensor]| MultiScaleHead { dropped: Some(factors.clone()), ..head(v, &moments) };
        let y = |v: &[Tensor]| Ok(dropping(v).forward()?.0);
        let (got, want) = (y(&v)?, Definition::Composed.run(|| y(&v))?);
        close(&got, &want, 1e-12)?;
        let composed = gradients(&v, |v| Definition::Composed.run(|| y(v)))?;
        for (i, (got, want)) in gradients(&v, y)?.iter().zip(&composed).enumerate() {
            if i != SIZES.len() + 1 {
                close(got, want, 1e-10)?;
            }
        }
    }
    let v = inputs(2)?;
    check(&v.iter().collect::<Vec<_>>(), |v| {
        Ok(MultiScaleHead { dropped: Some(factors.clone()), ..head(v, &given()?) }.forward()?.0)
    })?;
    let wrong = MultiScaleHead { dropped: Some(vec![1.0; HIDDEN]), ..head(&v, &given()?) };
    let message = wrong.forward().map(drop).unwrap_err().to_string();
    assert!(message.contains("a factor for each of 6 channels of 2 images, got 6"), "{message}");
    Ok(())
}

#[test]
fn a_large_head_gives_the_same_on_any_number_of_threads() -> Result<()> {
    let (channels, hidden) = ([3, 5], 32);
    let f32 = |seed, dims: &[usize]| normal(seed, dims)?.to_dtype(DType::F32);
    let v = [
        f32(1, &[2, 40 * 36, channels[0]])?,
        f32(2, &[2, 20 * 18, channels[1]])?,
        f32(3, &[hidden, 8])?,
        f32(4, &[hidden])?,
        f32(5, &[hidden])?,
        f32(6, &[hidden])?,
        f32(7, &[2, hidden])?,
        f32(8, &[2])?,
    ];
    let head = |v: &[Tensor]| {
        let map = |i: usize, size| FeatureMap { tokens: v[i].clone(), size };
        let conv = |i: usize| Conv1x1 { weight: v[i].clone(), bias: v[i + 1].clone() };
        let norm = BatchNorm { weight: v[4].clone(), bias: v[5].clone(), moments: MomentsOf::Batch, eps: 1e-5 };
        let head = MultiScaleHead {
            maps: vec![map(0, (40, 36)), map(1, (20, 18))],
            hidden: conv(2),
            norm,
            dropped: None,
            output: conv(6),
        };
        Ok(head.forward()?.0)
    };
    let on = |threads: usize| -> Result<Vec<Vec<f32>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let all = pool.install(|| {
            let mut all = gradients(&v, head)?;
            all.push(head(&v)?);
            Ok::<_, candle_core::Error>(all)
        })?;
        all.iter().map(|t| t.flatten_all()?.to_vec1()).collect()
    };
    assert_eq!(on(1)?, on(3)?);
    Ok(())
}

#[test]
fn maps_that_do_not_fit_are_refused() -> Result<()> {
    let (v, moments) = (inputs(1)?, given()?);
    let refused = |change: fn(&mut MultiScaleHead)| {
        let mut head = head(&v, &moments);
        change(&mut head);
        head.forward().unwrap_err().to_string()
    };
    assert!(refused(|head| head.maps.clear()).contains("got none"));
    assert!(refused(|head| head.maps.truncate(2)).contains("a hidden weight [6, 5]"));
    assert!(refused(|head| head.maps[1].size = (3, 5)).contains("a map [1, 15, 2]"));
    assert!(refused(|head| head.maps[1].size = (usize::MAX, 2)).contains("within memory"));
    Ok(())
}
