//! The task-adapting block: the last of every stage.

use super::view::Watch;
use super::{AdaptedLinear, PerTask, TaskAwareLinear};
use crate::layers::{Fold, LayerNorm, Mode};
use crate::ops;
use crate::ops::{MlpIntermediates, TaskCondition, WindowGrid};
use crate::params::Weights;
use crate::swin::{BlockConfig, BlockIntermediates, SwinBlock, Tokens};
use crate::task::TaskSet;
use candle_core::{Result, Tensor};

/// A Swin block that also makes tokens for each task.
///
/// ```text
/// tpc_t = a mean_l GELU(prompts of t · patches)     z_t = LayerNorm(tpc_t + a)
/// x_t   = x + W a + b + s B F(A z_t)                proj, F inside each window
/// h_t   = GELU(W1 n + b1 + s B1 F1(A1 norm2(x_t)))  n the shared normed tokens
/// x_t   = x_t + W2 GELU(fc1(n)) + b2 + s B2 F2(A2 h_t)
/// ```
/// a are the attended patches. The TPC operator multiplies each head's channels of a patch by a number that says how strongly task t's l
/// prompts attend to it, from their unscaled attention scores; without prompts z_t is a. Each residual draws its own drop-path.
///
/// # Shapes
/// Shared tokens `[B, H*W, C]`; the tasks' `[T*B, H*W, C]`, the tasks leading.
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::layers::Mode;
/// use tadformer::params::Weights;
/// use tadformer::swin::{StagePlan, SwinConfig, Tokens};
/// use tadformer::TADBlock;
/// use tadformer::tad::{Method, PerTask, Prompts};
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let config = StagePlan::new(&SwinConfig::tiny(), 0, Method::tadformer(8).block_low_rank(0))?.block(1)?;
/// let paths = PerTask::default().prompts(Prompts::None);
/// let block = TADBlock::new(config, &paths, &"semseg=21,depth=1".parse()?, None, &weights.pp("block"))?;
/// let patches = Tensor::randn(0f32, 1., (1, 7 * 10, 96), &Device::Cpu)?;
/// let (shared, tasks) = block.forward(&Tokens { patches, prompts: None, size: (7, 10) }, Mode::Eval)?;
/// assert_eq!((shared.patches.dims(), tasks.tokens.dims()), ([1, 70, 96].as_slice(), [2, 70, 96].as_slice()));
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// Source: section 3 of the paper, figure 2.
#[derive(Clone, Debug)]
pub struct TADBlock {
    block: SwinBlock,
    prompt_norm: Option<LayerNorm>,
    proj: TaskAwareLinear,
    fc1: TaskAwareLinear,
    fc2: TaskAwareLinear,
    tasks: usize,
}

/// What a task-adapting block gives besides its shared tokens.
#[derive(Clone, Debug)]
pub struct TaskTokens {
    /// What makes the TPC feature: the attended patches and the prompts' scores; `None` without prompts.
    pub condition: Option<TaskCondition>,
    /// How the condition's windows lie on the map.
    pub grid: WindowGrid,
    /// The tasks' tokens, `[T*B, H*W, C]`.
    pub tokens: Tensor,
}

impl TADBlock {
    /// From `weights` at `layers.I.blocks.J`. `prompt_norm` follows the TPC operator; a block without prompts has none.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a kernel that no filter can have.
    pub fn new(
        block: BlockConfig,
        paths: &PerTask,
        tasks: &TaskSet,
        prompt_norm: Option<LayerNorm>,
        weights: &Weights,
    ) -> Result<Self> {
        let block = SwinBlock::new(block, weights)?;
        let aware = |linear, place: &str, layer: &str| {
            TaskAwareLinear::new(linear, paths.filter, tasks, &weights.pp(place).pp(layer))
        };
        Ok(Self {
            proj: aware(&block.attention.proj, "attn", "proj")?,
            fc1: aware(&block.mlp.fc1, "mlp", "fc1")?,
            fc2: aware(&block.mlp.fc2, "mlp", "fc2")?,
            prompt_norm,
            tasks: tasks.len(),
            block,
        })
    }

    /// Folds the path of queries, keys and values, or drops what was folded; the other linears' stay apart, since tasks read the frozen
    /// products alone.
    ///
    /// # Errors
    /// As [`SwinBlock::fold`].
    pub fn fold(&mut self, how: Fold) -> Result<()> {
        let SwinBlock { attention, mlp, .. } = &mut self.block;
        attention.qkv.fold(how)?;
        [&mut attention.proj, &mut mlp.fc1, &mut mlp.fc2].into_iter().try_for_each(|linear| linear.lay_out(how))
    }

    /// Shared tokens on, and each task's tokens.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says; prompts that the tasks do not divide; prompts for a block that has no
    /// norm for what they condition, or none for one that has.
    pub fn forward(&self, x: &Tokens, mode: Mode) -> Result<(Tokens, TaskTokens)> {
        self.forward_watched(x, mode, &mut |_, _, _| Ok(()))
    }

    /// [`TADBlock::forward`], with what its filters read.
    pub(super) fn forward_watched(&self, x: &Tokens, mode: Mode, watch: &mut Watch) -> Result<(Tokens, TaskTokens)> {
        let (shared, inner) = self.block.forward_intermediates(x, mode)?;
        let condition = inner.attention.prompt_scores.as_ref().map(|scores| TaskCondition {
            attended: inner.attention.attended.clone(),
            scores: scores.clone(),
            tasks: self.tasks,
        });
        let x_t = self.project(&x.patches, &inner, condition.as_ref(), mode, watch)?;
        let tokens = self.mlp(&inner.mlp, &x_t, x.size, mode, watch)?;
        Ok((shared, TaskTokens { condition, grid: inner.grid, tokens }))
    }

    /// T.
    pub(super) fn tasks(&self) -> usize {
        self.tasks
    }

    /// The tasks' tokens after attention, `[T*B, H*W, C]`.
    fn project(
        &self,
        x: &Tensor,
        BlockIntermediates { grid, attention, .. }: &BlockIntermediates,
        condition: Option<&TaskCondition>,
        mode: Mode,
        watch: &mut Watch,
    ) -> Result<Tensor> {
        let frozen = &attention.projected;
        let Some(path) = self.proj.filtered_path() else {
            let update = grid.reverse(&ops::for_each_task(frozen, self.tasks)?)?;
            return self.block.residual(&ops::for_each_task(x, self.tasks)?, &update, mode);
        };
        let window = (grid.window(), grid.window());
        let u = match (condition, &self.prompt_norm) {
            (Some(condition), Some(norm)) => path.down_conditioned(condition, norm)?,
            (None, None) => path.down_shared(&attention.attended, self.tasks)?,
            (Some(_), None) => candle_core::bail!(
                "task-adapting block: expected tokens without prompts, since it has no prompt norm, got prompts (give `TADBlock::new` \
                 a `prompt_norm`, or the block no prompts)"
            ),
            (None, Some(_)) => candle_core::bail!(
                "task-adapting block: expected tokens with prompts, since it has a prompt norm, got none (give the block prompts, or \
                 `TADBlock::new` no `prompt_norm`)"
            ),
        };
        watch(AdaptedLinear::Proj, &self.proj, &u)?;
        let f = path.filter(&u, window)?;
        path.project(x, frozen, &f, grid, self.block.drop_path(self.tasks * x.dim(0)?, mode))
    }

    /// The tasks' second half, `[T*B, H*W, C]` to the same.
    fn mlp(
        &self,
        frozen: &MlpIntermediates,
        x_t: &Tensor,
        size: (usize, usize),
        mode: Mode,
        watch: &mut Watch,
    ) -> Result<Tensor> {
        let (Some(fc1), Some(fc2)) = (self.fc1.filtered_path(), self.fc2.filtered_path()) else {
            let normed = self.block.norm2.forward(x_t)?;
            let see = |u: &Tensor| watch(AdaptedLinear::Fc1, &self.fc1, u);
            let hidden = ops::gelu(&self.fc1.forward_watched(&frozen.pre, &normed, size, see)?)?;
            let see = |u: &Tensor| watch(AdaptedLinear::Fc2, &self.fc2, u);
            return self.block.residual(x_t, &self.fc2.forward_watched(&frozen.post, &hidden, size, see)?, mode);
        };
        let u = fc1.down_normed(x_t, &self.block.norm2)?;
        watch(AdaptedLinear::Fc1, &self.fc1, &u)?;
        let u = fc2.down_hidden(&frozen.pre, &fc1.filter(&u, size)?, fc1)?;
        watch(AdaptedLinear::Fc2, &self.fc2, &u)?;
        fc2.update(x_t, &frozen.post, &fc2.filter(&u, size)?, self.block.drop_path(x_t.dim(0)?, mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LowRankConfig;
    use crate::ops::finite_difference::normal;
    use crate::swin::{BlockLowRank, PromptUpdate};
    use candle_core::{DType, Device};

    fn block(proj: Option<LowRankConfig>, prompt_norm: Option<LayerNorm>) -> crate::Result<TADBlock> {
        let low_rank = BlockLowRank { proj, ..Default::default() };
        let (drop_path, prompts) = (0.0, PromptUpdate::Residual);
        let config =
            BlockConfig { channels: 4, heads: 2, window: 2, hidden: 8, shifted: false, drop_path, low_rank, prompts };
        let weights = Weights::random(0, DType::F64, &Device::Cpu);
        Ok(TADBlock::new(config, &PerTask::default(), &"sal=1,depth=1".parse()?, prompt_norm, &weights)?)
    }

    /// Prompts without a norm were attended to and conditioned nothing, in silence.
    #[test]
    fn prompts_and_their_norm_come_together_or_not_at_all() -> crate::Result<()> {
        let path = Some(LowRankConfig { rank: 2, scale: 1.0, dropout: 0.0 });
        let norm = || Ok::<_, candle_core::Error>(LayerNorm::new(normal(1, &[4])?, normal(2, &[4])?));
        let (patches, prompts) = (normal(3, &[1, 4, 4])?, normal(4, &[1, 2, 4])?);
        let forward = |block: TADBlock, prompts: Option<&Tensor>| {
            let x = Tokens { patches: patches.clone(), prompts: prompts.cloned(), size: (2, 2) };
            block.forward(&x, Mode::Eval).map(drop)
        };
        let message = forward(block(path, None)?, Some(&prompts)).unwrap_err().to_string();
        assert!(message.contains("no prompt norm, got prompts (give `TADBlock::new` a `prompt_norm`"), "{message}");
        let message = forward(block(path, Some(norm()?))?, None).unwrap_err().to_string();
        assert!(message.contains("has a prompt norm, got none (give the block prompts"), "{message}");
        forward(block(path, Some(norm()?))?, Some(&prompts))?;
        forward(block(path, None)?, None)?;
        // Without a path at the projection nothing is normed; the gate at the stage's end reads the condition alone.
        Ok(forward(block(None, None)?, Some(&prompts))?)
    }
}
