//! Forward passes that keep what was looked at.

use super::{Encoder, FilterView, StageView, TADBlock, TaskAwareLinear, TaskTokens};
use crate::layers::Mode;
use crate::swin::Tokens;
use candle_core::{Result, Tensor};

impl TADBlock {
    /// [`TADBlock::forward`] in evaluation: the tasks' tokens, and the filters used on the way.
    pub(super) fn view(&self, x: &Tokens) -> Result<(TaskTokens, Vec<FilterView>)> {
        let mut filters = Vec::new();
        let mut watch = |linear, aware: &TaskAwareLinear, u: &Tensor| {
            if let Some(taps) = aware.taps(u)? {
                let (maps, kk, r) = taps.dims3()?;
                let (tasks, images) = (self.tasks(), x.patches.dim(0)?);
                let taps = taps.reshape((tasks, images, maps / (tasks * images), kk, r))?;
                filters.push(FilterView { linear, taps });
            }
            Ok(())
        };
        let (_, tokens) = self.forward_watched(x, Mode::Eval, &mut watch)?;
        Ok((tokens, filters))
    }
}

impl TaskTokens {
    /// g of each task's prompts as maps, `[T, B, nH, H, W]`; `None` without prompts.
    ///
    /// # Errors
    /// A condition of other windows than the grid's.
    pub fn attention(&self) -> Result<Option<Tensor>> {
        let Some(condition) = &self.condition else { return Ok(None) };
        let gates = condition.gates()?; // [B*nW, nH, T, N]
        let (windows, heads, tasks, n) = gates.dims4()?;
        let gates = gates.permute((2, 0, 3, 1))?.reshape((tasks * windows, n, heads))?;
        let (h, w) = self.grid.size();
        let maps = self.grid.reverse(&gates)?; // [T*B, H*W, nH]
        Ok(Some(maps.transpose(1, 2)?.reshape(&[tasks, maps.dim(0)? / tasks, heads, h, w][..])?))
    }
}

impl Encoder {
    /// What each stage's task-adapting block looks at on images `[B, 3, H, W]`: nothing where the tasks have no paths of their own.
    ///
    /// It takes two forward passes: one for what enters each stage, and each stage once more.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    pub fn inspect(&self, images: &Tensor) -> Result<Vec<StageView>> {
        let mut x = self.first(images)?;
        let mut views = Vec::new();
        for (stage, output) in self.stages().iter().zip(self.forward(images, Mode::Eval)?) {
            views.extend(stage.view(x)?);
            x = Tokens { patches: output.shared.tokens, prompts: output.prompts, size: output.shared.size };
        }
        Ok(views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{LayerNorm, LowRankConfig};
    use crate::ops::finite_difference::{close, normal};
    use crate::params::Weights;
    use crate::swin::{BlockConfig, BlockLowRank, PromptUpdate, SwinConfig};
    use crate::tad::{AdaptedLinear, Gate, Method, PerTask, Prompts, TaskFilterKind};
    use candle_core::{DType, Device};

    const TASKS: &str = "sal=1,depth=1";
    const SIZE: (usize, usize) = (3, 6);

    /// Windows of 2 x 2 on maps of 3 x 6: padded and shifted.
    fn block(filter: TaskFilterKind, low_rank: BlockLowRank) -> crate::Result<TADBlock> {
        let (drop_path, prompts) = (0.0, PromptUpdate::Residual);
        let config =
            BlockConfig { channels: 4, heads: 2, window: 2, hidden: 8, shifted: true, drop_path, low_rank, prompts };
        let norm =
            low_rank.proj.map(|_| Ok::<_, candle_core::Error>(LayerNorm::new(normal(1, &[4])?, normal(2, &[4])?)));
        let weights = Weights::random(0, DType::F64, &Device::Cpu);
        Ok(TADBlock::new(config, &PerTask::default().filter(filter), &TASKS.parse()?, norm.transpose()?, &weights)?)
    }

    /// Two images with prompts of two tasks.
    fn tokens() -> Result<Tokens> {
        Ok(Tokens { patches: normal(3, &[2, 18, 4])?, prompts: Some(normal(4, &[2, 4, 4])?), size: SIZE })
    }

    /// Candle's own convolution of tokens with taps.
    fn convolved(u: &Tensor, taps: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
        let (kk, r) = taps.dims2()?;
        let side = kk.isqrt();
        let weight = taps.t()?.reshape((r, 1, side, side))?;
        let map = u.t()?.reshape((1, r, h, w))?.conv2d(&weight, side / 2, 1, 1, r)?;
        map.reshape((r, h * w))?.t()
    }

    #[test]
    fn a_viewed_filter_is_the_one_that_the_task_path_uses() -> crate::Result<()> {
        let path = Some(LowRankConfig { rank: 2, scale: 1.0, dropout: 0.0 });
        let all = BlockLowRank { proj: path, fc1: path, fc2: path, qkv: None };
        for (low_rank, linears) in [
            (all, vec![AdaptedLinear::Proj, AdaptedLinear::Fc1, AdaptedLinear::Fc2]),
            (BlockLowRank { fc1: None, ..all }, vec![AdaptedLinear::Proj, AdaptedLinear::Fc2]),
            (BlockLowRank { proj: None, fc2: None, ..all }, vec![AdaptedLinear::Fc1]),
        ] {
            let block = block(TaskFilterKind::Dynamic { kernel: 3 }, low_rank)?;
            let (_, filters) = block.view(&tokens()?)?;
            assert_eq!(filters.iter().map(|filter| filter.linear).collect::<Vec<_>>(), linears);
            let mut views = filters.into_iter();
            block.forward_watched(&tokens()?, Mode::Eval, &mut |linear, aware, u| {
                let (view, proj) = (views.next().unwrap(), linear == AdaptedLinear::Proj);
                let (size, n) = if proj { ((2, 2), 6) } else { (SIZE, 1) };
                assert_eq!(view.taps.dims(), [2, 2, n, 9, 2]);
                let (filtered, taps) = (aware.filter(u, size)?, view.taps.flatten(0, 2)?);
                for map in 0..u.dim(0)? {
                    close(&filtered.get(map)?, &convolved(&u.get(map)?, &taps.get(map)?, size)?, 1e-12)?;
                }
                Ok(())
            })?;
            assert!(views.next().is_none());
        }
        Ok(())
    }

    #[test]
    fn viewed_attention_is_what_the_attended_patches_are_multiplied_by() -> crate::Result<()> {
        let path = Some(LowRankConfig { rank: 2, scale: 1.0, dropout: 0.0 });
        let block = block(TaskFilterKind::None, BlockLowRank { proj: path, ..Default::default() })?;
        let (tokens, filters) = block.view(&tokens()?)?;
        assert!(filters.is_empty());
        let attention = tokens.attention()?.unwrap();
        assert_eq!(attention.dims(), [2, 2, 2, 3, 6]);
        let condition = tokens.condition.unwrap();
        let feature = tokens.grid.reverse(&condition.feature()?.flatten(0, 1)?)?; // [T*B, N, C]
        let attended = tokens.grid.reverse(&condition.attended)?; // [B, N, C]
        let gates = attention.reshape((2, 2, 2, 18))?.transpose(2, 3)?.unsqueeze(4)?; // [T, B, N, nH, 1]
        let want = attended.reshape((1, 2, 18, 2, 2))?.broadcast_mul(&gates)?;
        Ok(close(&feature.reshape((2, 2, 18, 2, 2))?, &want, 1e-12)?)
    }

    fn encoder(method: &Method) -> crate::Result<Encoder> {
        let swin =
            SwinConfig { embed_dim: 8, depths: vec![2, 1], num_heads: vec![2, 4], window: 4, ..SwinConfig::tiny() };
        Ok(Encoder::new(&swin, method, &TASKS.parse()?, &Weights::random(0, DType::F64, &Device::Cpu))?)
    }

    #[test]
    fn every_stage_is_viewed_on_the_tokens_that_enter_it() -> crate::Result<()> {
        let (encoder, images) = (encoder(&Method::tadformer(4))?, normal(5, &[2, 3, 40, 56])?);
        let views = encoder.inspect(&images)?;
        let alone = encoder.inspect(&images.narrow(0, 1, 1)?)?;
        for (view, (alone, dims)) in views.iter().zip(alone.iter().zip([[2, 2, 2, 10, 14], [2, 2, 4, 5, 7]])) {
            let attention = view.attention.as_ref().unwrap();
            assert_eq!(attention.dims(), dims);
            close(&attention.narrow(1, 1, 1)?, alone.attention.as_ref().unwrap(), 1e-12)?;
            assert_eq!(view.gate.as_ref().unwrap().to_vec1::<f64>()?, [0.5]);
            assert_eq!(view.filters.len(), 3);
            for (filter, alone) in view.filters.iter().zip(&alone.filters) {
                close(&filter.taps.narrow(1, 1, 1)?, &alone.taps, 1e-12)?;
            }
        }
        // The second stage reads what the first gave: another photo, other maps.
        let [first, other] = [0, 1].map(|b| views[1].attention.as_ref().unwrap().narrow(1, b, 1));
        assert!((first? - other?)?.abs()?.max_all()?.to_scalar::<f64>()? > 1e-6);
        Ok(())
    }

    #[test]
    fn what_a_method_lacks_is_not_viewed() -> crate::Result<()> {
        let images = normal(5, &[1, 3, 40, 56])?;
        let with =
            |paths: PerTask| encoder(&Method::tadformer(4).task_paths(paths))?.inspect(&images).map_err(Into::into);
        let unprompted: crate::Result<Vec<StageView>> = with(PerTask::default().prompts(Prompts::None));
        for view in unprompted? {
            assert!(view.attention.is_none() && view.gate.is_none() && view.filters.len() == 3);
        }
        let ungated = Prompts::Learned { per_task: 2, gate: Gate::None };
        for view in with(PerTask::default().filter(TaskFilterKind::None).prompts(ungated))? {
            assert!(view.attention.is_some() && view.gate.is_none() && view.filters.is_empty());
        }
        let shared = encoder(&Method::low_rank(4))?.inspect(&images)?;
        assert!(shared.is_empty());
        Ok(())
    }

    #[test]
    fn distances_are_those_of_directions() -> Result<()> {
        let taps = Tensor::new(&[[1f64, 0.0], [5.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], &Device::Cpu)?;
        let view = FilterView { linear: AdaptedLinear::Fc1, taps: taps.reshape((4, 1, 1, 1, 2))? };
        let want = [[0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0], [1.0, 1.0, 0.0, 1.0], [2.0, 2.0, 1.0, 0.0]];
        close(&view.distances()?, &Tensor::new(&want, &Device::Cpu)?, 1e-12)?;
        let windows = Tensor::cat(&[view.taps.clone(), Tensor::ones((4, 1, 1, 1, 2), DType::F64, &Device::Cpu)?], 2)?;
        let half = FilterView { linear: AdaptedLinear::Proj, taps: windows }.distances()?.to_vec2::<f64>()?;
        assert!((half[0][3] - 1.0).abs() < 1e-12, "{half:?}");
        Ok(())
    }
}
