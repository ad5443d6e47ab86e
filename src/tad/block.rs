//! The task-adapting block: the last of every stage.

use super::view::Watch;
use super::{AdaptedLinear, PerTask, TaskAwareLinear};
use crate::layers::{LayerNorm, Merge, Mode};
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
/// let plan = StagePlan::new(&SwinConfig::tiny(), 0, Method::tadformer(8).block_low_rank(0)).block(1);
/// let paths = PerTask::default().prompts(Prompts::None);
/// let block = TADBlock::new(plan, &paths, &"semseg=21,depth=1".parse()?, None, &weights.pp("block"))?;
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

    /// Folds the paths of which no task needs the frozen product alone, or restores them.
    ///
    /// # Errors
    /// As [`SwinBlock::merge`].
    pub fn merge(&mut self, how: Merge) -> Result<()> {
        self.block.merge(if how == Merge::Fold { Merge::Apart } else { how })
    }

    /// Shared tokens on, and each task's tokens.
    ///
    /// # Errors
    /// Tokens of another number than the size beside them says; prompts that the tasks do not divide.
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
        let Some(path) = self.proj.path() else {
            let update = grid.reverse(&ops::for_each_task(frozen, self.tasks)?)?;
            return self.block.residual(&ops::for_each_task(x, self.tasks)?, &update, mode);
        };
        let u = match condition.zip(self.prompt_norm.as_ref()) {
            Some((condition, norm)) => ops::conditioned_down(condition, norm, &path.a)?,
            None => path.a.forward_shared(&attention.attended, self.tasks)?,
        };
        watch(AdaptedLinear::Proj, &self.proj, &u)?;
        let f = self.proj.filter(&u, (grid.window(), grid.window()))?;
        ops::task_projection(x, frozen, &f, path, grid, self.block.drop_path(self.tasks * x.dim(0)?, mode))
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
        let (Some(fc1), Some(fc2)) = (self.fc1.path(), self.fc2.path()) else {
            let normed = self.block.norm2.forward(x_t)?;
            let see = |u: &Tensor| watch(AdaptedLinear::Fc1, &self.fc1, u);
            let hidden = ops::gelu(&self.fc1.forward_watched(&frozen.pre, &normed, size, see)?)?;
            let see = |u: &Tensor| watch(AdaptedLinear::Fc2, &self.fc2, u);
            return self.block.residual(x_t, &self.fc2.forward_watched(&frozen.post, &hidden, size, see)?, mode);
        };
        let u = ops::norm_down(x_t, &self.block.norm2, &fc1.a)?;
        watch(AdaptedLinear::Fc1, &self.fc1, &u)?;
        let u = ops::task_hidden(&frozen.pre, &self.fc1.filter(&u, size)?, fc1, fc2)?;
        watch(AdaptedLinear::Fc2, &self.fc2, &u)?;
        ops::task_update(x_t, &frozen.post, &self.fc2.filter(&u, size)?, fc2, self.block.drop_path(x_t.dim(0)?, mode))
    }
}
