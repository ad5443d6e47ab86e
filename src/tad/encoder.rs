//! The encoder: from images to each task's map at every stage.

use super::{Method, Prompts, TADStage, TaskPrompt};
use crate::layers::{FeatureMap, Merge, Mode};
use crate::layers::{PatchMerging, StageMap};
use crate::ops;
use crate::params::{Group, Weights};
use crate::swin::{PatchEmbed, SwinConfig, Tokens};
use crate::task::TaskSet;
use candle_core::{Result, Tensor};
use tracing::trace_span;

/// Swin with prompts, low-rank paths and task-adapting blocks.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::layers::Mode;
/// use tadformer::params::Weights;
/// use tadformer::tad::{Encoder, Method};
/// let weights = Weights::random(0, DType::F32, &Device::Cpu);
/// let swin = tadformer::SwinConfig { embed_dim: 16, depths: vec![2, 2], num_heads: vec![2, 4], ..Default::default() };
/// let encoder = Encoder::new(&swin, &Method::tadformer(4), &"semseg=21,depth=1".parse()?, &weights)?;
/// let stages = encoder.forward(&Tensor::zeros((1, 3, 32, 48), DType::F32, &Device::Cpu)?, Mode::Eval)?;
/// let depth = stages[0].task(1).features()?;
/// assert_eq!((depth.tokens.dims(), depth.size), ([1, 24, 32].as_slice(), (4, 6)));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    patch_embed: PatchEmbed,
    prompts: Option<TaskPrompt>,
    stages: Vec<TADStage>,
}

/// What a stage gives, after its patch merging.
#[derive(Clone, Debug)]
pub struct StageOutput {
    /// The shared tokens, which the next stage starts from.
    pub shared: FeatureMap,
    /// The prompts, with the next stage's channels: `[B, P, C]`.
    pub prompts: Option<Tensor>,
    /// Each task's map; `None` where tasks share the shared tokens.
    pub tasks: Option<Vec<StageMap>>,
}

impl StageOutput {
    /// The map that the decoder of task `t` reads.
    pub fn task(&self, t: usize) -> StageMap {
        let own = self.tasks.as_ref().and_then(|tasks| tasks.get(t));
        own.cloned().unwrap_or_else(|| self.shared.clone().into())
    }
}

impl Encoder {
    /// From `weights` under timm's names, adapters beside them.
    ///
    /// # Errors
    /// A Swin that cannot work, as [`SwinConfig::check`] tells; weights that are missing or of another shape; a name made twice; a kernel
    /// that no filter can have.
    pub fn new(swin: &SwinConfig, method: &Method, tasks: &TaskSet, weights: &Weights) -> Result<Self> {
        swin.check().map_err(candle_core::Error::wrap)?;
        let prompts = match method.prompts() {
            Prompts::None => None,
            Prompts::Learned { per_task, .. } => {
                let vb = weights.adapter(Group::Prompts).pp("prompts");
                Some(TaskPrompt::new(tasks.len() * per_task, swin.embed_dim, swin.stages(), vb)?)
            }
        };
        let stage = |i| TADStage::new(i, swin, method, tasks, weights);
        let stages = (0..swin.stages()).map(stage).collect::<Result<_>>()?;
        Ok(Self { patch_embed: PatchEmbed::new(swin, &weights.pp("patch_embed"))?, prompts, stages })
    }

    /// Folds its blocks' paths, or restores them.
    ///
    /// # Errors
    /// As [`TADStage::merge`].
    pub fn merge(&mut self, how: Merge) -> Result<()> {
        self.stages.iter_mut().try_for_each(|stage| stage.merge(how))
    }

    /// For each stage, the patch merging that is still to come for the tasks' maps.
    pub fn task_mergings(&self) -> Vec<Option<&PatchMerging>> {
        self.stages.iter().map(TADStage::task_merging).collect()
    }

    /// In their order.
    pub(super) fn stages(&self) -> &[TADStage] {
        &self.stages
    }

    /// The tokens that enter the first stage.
    pub(super) fn first(&self, images: &Tensor) -> Result<Tokens> {
        let embedding = trace_span!(target: "tadformer::model", "patch-embedding");
        let FeatureMap { tokens, size } = embedding.in_scope(|| self.patch_embed.forward(images))?;
        let prompts = self.prompts.as_ref().map(|prompts| prompts.first(images.dim(0)?)).transpose()?;
        Ok(Tokens { patches: tokens, prompts, size })
    }

    /// Images `[B, 3, H, W]` of any size to one [`StageOutput`] a stage.
    ///
    /// # Errors
    /// Images that are not `[B, 3, H, W]`.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Vec<StageOutput>> {
        let mut x = self.first(images)?;
        let mut outputs = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            let _part = trace_span!(target: "tadformer::model", "stage", index = i).entered();
            let tasks;
            (x, tasks) = stage.forward(x, mode)?;
            if let (Some(grow), Some(prompts)) = (&self.prompts, &x.prompts) {
                x.prompts = Some(ops::leaf(&grow.next(i, prompts)?)?);
            }
            let shared = FeatureMap { tokens: x.patches.clone(), size: x.size };
            outputs.push(StageOutput { shared, prompts: x.prompts.clone(), tasks });
        }
        Ok(outputs)
    }
}
