//! The inputs of each step of `ops`.

use super::Step;
use super::case::{Draws, Sizes};
use candle_core::{Device, Result, Tensor};
use std::sync::Arc;
use tadformer::ops::{
    self, Attended, Attention, AttentionHalf, AttentionIntermediates, BatchMoments, BatchNorm, Conv1x1, Dropout,
    Factor, FeatureMap, FilterWeights, LayerNorm, LowRankMap, LowRankPath, MlpHalf, MlpIntermediates, MomentsOf,
    MultiScaleHead, TaskCondition, TaskPath, TpcReading, WindowGrid,
};

/// A step that gives several tensors.
pub fn step(f: impl Fn() -> Result<Vec<Tensor>> + Send + Sync + 'static) -> Result<Step> {
    Ok(Arc::new(f))
}

/// A step that gives one.
pub fn only(f: impl Fn() -> Result<Tensor> + Send + Sync + 'static) -> Result<Step> {
    step(move || Ok(vec![f()?]))
}

fn norm(draws: &mut Draws, c: usize) -> Result<LayerNorm> {
    Ok(LayerNorm { eps: 1e-3, ..LayerNorm::new(draws.tensor(&[c])?, draws.tensor(&[c])?) })
}

fn path(draws: &mut Draws, out: usize, n_in: usize, rank: usize) -> Result<LowRankPath> {
    let dropout = if draws.flag() { Some(Dropout { rate: 0.3, seed: draws.seed() }) } else { None };
    Ok(LowRankPath { a: draws.tensor(&[rank, n_in])?, b: draws.tensor(&[out, rank])?, scale: 0.5, dropout })
}

/// One that the tasks share, or one for each.
fn factor(draws: &mut Draws, out: usize, n_in: usize) -> Result<Factor> {
    if draws.flag() {
        return Ok(draws.tensor(&[out, n_in])?.into());
    }
    let tasks = draws.number(draws.sizes().tasks).min(4);
    (0..tasks).map(|_| draws.tensor(&[out, n_in])).collect::<Result<_>>().map(Factor::PerTask)
}

fn task_path(draws: &mut Draws, out: usize, n_in: usize, rank: usize) -> Result<TaskPath> {
    Ok(TaskPath { a: factor(draws, rank, n_in)?, b: factor(draws, out, rank)?, scale: 0.5 })
}

fn map(draws: &mut Draws, out: usize, n_in: usize) -> Result<LowRankMap> {
    let rank = draws.sizes().rank;
    Ok(LowRankMap {
        weight: draws.stored(&[out, n_in])?,
        bias: if draws.flag() { Some(draws.tensor(&[out])?) } else { None },
        path: if draws.flag() { Some(path(draws, out, n_in, rank)?) } else { None },
    })
}

fn drop_path(draws: &mut Draws, images: usize) -> Option<Vec<f64>> {
    let factors = draws.number(images).min(images + 1);
    draws.flag().then(|| (0..factors).map(|i| i as f64 * 0.5).collect())
}

fn window_grid(draws: &mut Draws) -> Result<WindowGrid> {
    let Sizes { height, width, window, .. } = *draws.sizes();
    let (size, window, shifted) = (draws.size((height, width)), draws.number(window), draws.flag());
    WindowGrid::new(size, window, shifted)
}

/// For maps cut into the windows of the sizes.
fn condition(draws: &mut Draws) -> Result<TaskCondition> {
    let s = draws.sizes();
    let (windows, n) = (s.images * s.windows(), s.patches());
    Ok(TaskCondition {
        attended: draws.tensor(&[windows, n, s.channels()])?,
        scores: draws.tensor(&[windows, s.heads, s.tasks * s.prompts, n])?,
        tasks: draws.number(s.tasks),
    })
}

fn filter_weights(draws: &mut Draws) -> Result<FilterWeights> {
    let Sizes { rank: r, kernel, .. } = *draws.sizes();
    let n = r * kernel * kernel;
    Ok(FilterWeights {
        kernel_size: draws.number(kernel),
        weight: draws.varied(&[n, r])?,
        bias: draws.varied(&[n])?,
        scale: draws.varied(&[n])?,
        shift: draws.varied(&[n])?,
    })
}

pub fn gelu(draws: &mut Draws) -> Result<Step> {
    let Sizes { images, height, width, .. } = *draws.sizes();
    let x = draws.tensor(&[images, height, width])?;
    only(move || ops::gelu(&x))
}

pub fn layer_norm(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, norm) = (draws.tensor(&[s.images, s.tokens(), c])?, norm(draws, c)?);
    only(move || norm.forward(&x))
}

pub fn linear(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, weight) = (draws.tensor(&[s.images, s.tokens(), c])?, draws.stored(&[s.hidden, c])?);
    let bias = if draws.flag() { Some(draws.tensor(&[s.hidden])?) } else { None };
    only(move || ops::linear(&x, &weight, bias.as_ref()))
}

pub fn low_rank_map(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, map) = (draws.tensor(&[s.images, s.tokens(), c])?, map(draws, s.hidden, c)?);
    step(move || {
        let mut outputs = vec![map.forward(&x)?, map.turned()?.forward(&x)?];
        let apart = map.add_path(&map.pretrained(&x)?, &map.dropped(&x)?)?;
        if let Some(path) = &map.path {
            let update = path.up(&path.down(&x)?)?;
            assert_eq!((update.dims(), path.rank()?), (apart.dims(), path.a.dims()[0]));
            outputs.push(update);
        }
        map.folded()?.forward(&x)?;
        Ok([outputs, vec![apart]].concat())
    })
}

pub fn norm_down(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, norm) = (draws.tensor(&[s.tasks * s.images, s.tokens(), c])?, norm(draws, c)?);
    let a = factor(draws, s.rank, c)?;
    only(move || ops::norm_down(&x, &norm, &a))
}

pub fn merge_linear(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, size) = (draws.tensor(&[s.images, s.tokens(), c])?, draws.size((s.height, s.width)));
    let (norm, weight) = (norm(draws, 4 * c)?, draws.stored(&[s.hidden, 4 * c])?);
    only(move || ops::merge_linear(&x, size, &norm, &weight))
}

pub fn bilinear(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let x = draws.tensor(&[s.images, s.rank, s.height, s.width])?;
    let (height, width) = (draws.one_of(&[1, s.height, 2 * s.height, 7]), draws.one_of(&[s.width, 3 * s.width, 5]));
    let size = draws.size((height, width));
    only(move || ops::bilinear(&x, size))
}

pub fn batch_norm(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (x, norm) = (draws.tensor(&[s.images * s.tokens(), c])?, batch_norm_of(draws, c)?);
    step(move || {
        let (y, BatchMoments { mean, variance }) = norm.forward(&x)?;
        Ok(vec![y, mean, variance])
    })
}

fn batch_norm_of(draws: &mut Draws, c: usize) -> Result<BatchNorm> {
    let moments = match draws.flag() {
        true => MomentsOf::Batch,
        false => MomentsOf::Given(BatchMoments { mean: draws.positive(&[c])?, variance: draws.positive(&[c])? }),
    };
    Ok(BatchNorm { weight: draws.tensor(&[c])?, bias: draws.tensor(&[c])?, moments, eps: 0.1 })
}

pub fn multi_scale_head(draws: &mut Draws) -> Result<Step> {
    let (s, count) = (draws.sizes(), draws.one_of(&[1, 2, 3]));
    let count = draws.number(count).min(4);
    let (mut maps, mut channels) = (Vec::new(), 0);
    for i in 0..count {
        let ((h, w), c) = ((s.height.div_ceil(i + 1), s.width.div_ceil(i + 1)), draws.one_of(&[1, 2, 5]));
        maps.push(FeatureMap { tokens: draws.tensor(&[s.images, h * w, c])?, size: draws.size((h, w)) });
        channels += c;
    }
    let mut conv = |out: usize, n_in: usize| -> Result<Conv1x1> {
        Ok(Conv1x1 { weight: draws.tensor(&[out, n_in])?, bias: draws.tensor(&[out])? })
    };
    let (hidden, output) = (conv(s.hidden, channels)?, conv(s.rank, s.hidden)?);
    let norm = batch_norm_of(draws, s.hidden)?;
    let factors = draws.number(s.images * s.hidden).min(1 << 12);
    let dropped = draws.flag().then(|| (0..factors).map(|i| (i % 3) as f64).collect());
    let head = MultiScaleHead { maps, hidden, norm, dropped, output };
    step(move || {
        let (y, BatchMoments { mean, variance }) = head.clone().forward()?;
        Ok(vec![y, mean, variance])
    })
}

pub fn feature_map(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let image = draws.tensor(&[s.images, s.rank, s.height, s.width])?;
    let map =
        FeatureMap { tokens: draws.tensor(&[s.images, s.tokens(), s.rank])?, size: draws.size((s.height, s.width)) };
    step(move || Ok(vec![FeatureMap::from_nchw(&image)?.tokens, map.to_nchw()?, map.to_nhwc()?]))
}

pub fn conv3x3(draws: &mut Draws) -> Result<Step> {
    let (s, rate) = (draws.sizes(), draws.one_of(&[1, 2, 5]));
    let tokens = draws.tensor(&[s.images, s.tokens(), s.rank])?;
    let map = FeatureMap { tokens, size: draws.size((s.height, s.width)) };
    let (weight, rate) = (draws.tensor(&[s.hidden, s.rank, 3, 3])?, draws.number(rate));
    only(move || ops::conv3x3(&map, &weight, rate))
}

pub fn depthwise_filter(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let u = draws.tensor(&[s.images, s.height, s.width, s.rank])?;
    let kernel = draws.number(s.kernel).min(9);
    let taps = draws.tensor(&[s.images, kernel * kernel, s.rank])?;
    only(move || ops::depthwise_filter(&u, &taps))
}

pub fn filter_norm(draws: &mut Draws) -> Result<Step> {
    let (s, kernel) = (draws.sizes(), draws.number(draws.sizes().kernel));
    let n = s.rank * s.kernel * s.kernel;
    let [taps, scale, shift] = [draws.varied(&[s.images, n])?, draws.tensor(&[n])?, draws.tensor(&[n])?];
    only(move || ops::filter_norm(&taps, &scale, &shift, kernel))
}

pub fn filter_taps(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let (weights, u) = (filter_weights(draws)?, draws.tensor(&[s.images, s.tokens(), s.rank])?);
    only(move || ops::filter_taps(&u, &weights))
}

pub fn dynamic_filter(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let (weights, u) = (filter_weights(draws)?, draws.tensor(&[s.images, s.tokens(), s.rank])?);
    let size = draws.size((s.height, s.width));
    only(move || ops::dynamic_filter(&u, size, &weights))
}

pub fn relative_position_index(draws: &mut Draws) -> Result<Step> {
    let m = draws.number(draws.sizes().window);
    step(move || Ok(vec![Tensor::new(ops::relative_position_index(m)?, &Device::Cpu)?]))
}

pub fn shift_mask(draws: &mut Draws) -> Result<Step> {
    let grid = window_grid(draws)?;
    step(move || Ok(ops::shift_mask(&grid, &Device::Cpu)?.into_iter().collect()))
}

pub fn grid(draws: &mut Draws) -> Result<Step> {
    let (s, grid) = (draws.sizes(), window_grid(draws)?);
    let ((h, w), (hp, wp), m) = (grid.size(), grid.padded(), grid.window());
    assert!(hp >= h && wp >= w && grid.shift() < m && grid.windows() * m * m == hp * wp);
    let x = draws.tensor(&[s.images, s.tokens(), s.rank])?;
    let windows = draws.tensor(&[s.images * s.windows(), s.patches(), s.rank])?;
    step(move || Ok(vec![grid.partition(&x)?, grid.reverse(&windows)?]))
}

pub fn window_attention(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let (windows, n, p) = (s.images * s.windows(), s.patches(), draws.one_of(&[0, s.prompts]));
    let qkv = draws.tensor(&[windows, p + n, 3 * s.channels()])?;
    let bias = draws.tensor(&[s.heads, n, n])?;
    let mask = if draws.flag() { Some(draws.mask(&[s.windows(), n, n])?) } else { None };
    step(move || {
        let Attention { tokens, prompt_scores } = ops::window_attention(&qkv, &bias, mask.as_ref())?;
        Ok([Some(tokens), prompt_scores].into_iter().flatten().collect())
    })
}

pub fn attention_half(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let n = s.patches();
    let half = AttentionHalf {
        patches: draws.tensor(&[s.images, s.tokens(), c])?,
        prompts: if draws.flag() { Some(draws.tensor(&[s.images, s.tasks * s.prompts, c])?) } else { None },
        grid: window_grid(draws)?,
        norm: norm(draws, c)?,
        qkv: map(draws, 3 * c, c)?,
        bias: draws.tensor(&[s.heads, n, n])?,
        mask: if draws.flag() { Some(draws.mask(&[s.windows(), n, n])?) } else { None },
        proj: map(draws, c, c)?,
        drop_path: drop_path(draws, s.images),
    };
    let together = |Attended { patches, prompts }| [Some(patches), prompts].into_iter().flatten();
    if draws.flag() {
        return step(move || Ok(together(half.clone().forward()?).collect()));
    }
    step(move || {
        let (attended, intermediates) = half.clone().forward_intermediates()?;
        let AttentionIntermediates { attended: a, projected, prompt_scores } = intermediates;
        Ok(together(attended).chain([a, projected]).chain(prompt_scores).collect())
    })
}

pub fn mlp_half(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let half = MlpHalf {
        x: draws.tensor(&[s.images, s.tokens(), c])?,
        norm: norm(draws, c)?,
        fc1: map(draws, s.hidden, c)?,
        fc2: map(draws, c, s.hidden)?,
        drop_path: drop_path(draws, s.images),
    };
    if draws.flag() {
        return only(move || half.clone().forward());
    }
    step(move || {
        let (y, MlpIntermediates { pre, post }) = half.clone().forward_intermediates()?;
        Ok(vec![y, pre, post])
    })
}

pub fn task_path_of(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (path, z) = (task_path(draws, s.hidden, c, s.rank)?, draws.tensor(&[s.tasks * s.images, s.tokens(), c])?);
    let (shared, tasks) = (draws.tensor(&[s.images, s.tokens(), c])?, s.tasks);
    step(move || {
        let u = path.down(&z)?;
        assert_eq!(Some(&path.rank()?), u.dims().last());
        Ok(vec![path.up(&u)?, u, path.a.forward_shared(&shared, tasks)?, path.a.forward(&z)?])
    })
}

pub fn task_condition(draws: &mut Draws) -> Result<Step> {
    let condition = condition(draws)?;
    step(move || Ok(vec![condition.feature()?, condition.gates()?]))
}

pub fn conditioned_down(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (condition, norm, a) = (condition(draws)?, norm(draws, c)?, factor(draws, s.rank, c)?);
    only(move || ops::conditioned_down(&condition, &norm, &a))
}

pub fn task_mix(draws: &mut Draws) -> Result<Step> {
    let s = draws.sizes();
    let (condition, grid) = (condition(draws)?, window_grid(draws)?);
    let (x, share) = (draws.tensor(&[s.tasks * s.images, s.tokens(), s.channels()])?, draws.tensor(&[1])?);
    let reading = draws.one_of(&[TpcReading::Positions, TpcReading::Swapped]);
    step(move || ops::task_mix(&x, &condition, &share, &grid, reading))
}

pub fn task_projection(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let (windows, n, grid) = (s.images * s.windows(), s.patches(), window_grid(draws)?);
    let (x, shared) = (draws.tensor(&[s.images, s.tokens(), c])?, draws.tensor(&[windows, n, c])?);
    let filtered = draws.tensor(&[s.tasks * windows, n, s.rank])?;
    let (b, drop_path) = (factor(draws, c, s.rank)?, drop_path(draws, s.tasks * s.images));
    let path = TaskPath { a: b.clone(), b, scale: 0.5 };
    only(move || ops::task_projection(&x, &shared, &filtered, &path, &grid, drop_path.clone()))
}

pub fn task_hidden(draws: &mut Draws) -> Result<Step> {
    let (s, r2) = (draws.sizes(), draws.one_of(&[1, 3, 16]));
    let (pre, filtered) =
        (draws.tensor(&[s.images, s.tokens(), s.hidden])?, draws.tensor(&[s.tasks * s.images, s.tokens(), s.rank])?);
    let (b, a) = (factor(draws, s.hidden, s.rank)?, factor(draws, r2, s.hidden)?);
    let path = |of: Factor| TaskPath { a: of.clone(), b: of, scale: 0.5 };
    let (fc1, fc2) = (path(b), path(a));
    only(move || ops::task_hidden(&pre, &filtered, &fc1, &fc2))
}

pub fn task_update(draws: &mut Draws) -> Result<Step> {
    let (s, c) = (draws.sizes(), draws.sizes().channels());
    let all = s.tasks * s.images;
    let (x, shared) = (draws.tensor(&[all, s.tokens(), c])?, draws.tensor(&[s.images, s.tokens(), c])?);
    let (filtered, b) = (draws.tensor(&[all, s.tokens(), s.rank])?, factor(draws, c, s.rank)?);
    let (path, drop_path) = (TaskPath { a: b.clone(), b, scale: 0.5 }, drop_path(draws, all));
    only(move || ops::task_update(&x, &shared, &filtered, &path, drop_path.clone()))
}
