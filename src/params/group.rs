//! What a weight is for: the groups by which weights are counted, released and optimised.

use crate::named::find_named;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::str::FromStr;

/// A kind of weight that a pretrained Swin brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pretrained {
    /// Every LayerNorm's scale and shift, patch merging's and the patch embedding's too.
    Norms,
    /// The relative position bias tables.
    PositionBias,
    /// The patch embedding's projection.
    PatchEmbedding,
    /// Patch merging's reductions.
    Reductions,
    /// Weights of qkv, proj, fc1 and fc2.
    Linears,
    /// Every bias. Those of qkv, proj, fc1 and fc2 are of this group alone; the norms' shifts and the patch embedding's bias are
    /// counted with their own groups, and train where either group is released.
    Biases,
}

/// The group a weight belongs to, given where the weight is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Group {
    /// A and B of the low-rank linears.
    LowRank,
    /// The task filters: their convolutions and FilterNorms.
    Filters,
    /// The prompt table and the prompts' up-projections.
    Prompts,
    /// The norms after the task-prompt conditional operator.
    PromptNorms,
    /// The gates at the stages' ends: one scalar a stage.
    Gates,
    /// Each task's projections of the stages.
    Projections,
    /// Each task's decoder.
    Heads,
    /// The decoders' layers that tasks share.
    SharedHeads,
    /// Running mean and variance of the decoders' BatchNorms: saved, never trained, not counted as parameters.
    Statistics,
    /// From the pretrained backbone.
    #[serde(untagged)]
    Pretrained(Pretrained),
}

impl Group {
    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::LowRank => "low_rank",
            Self::Filters => "filters",
            Self::Prompts => "prompts",
            Self::PromptNorms => "prompt_norms",
            Self::Gates => "gates",
            Self::Projections => "projections",
            Self::Heads => "heads",
            Self::SharedHeads => "shared_heads",
            Self::Statistics => "statistics",
            Self::Pretrained(group) => group.name(),
        }
    }
}

impl Pretrained {
    /// All of them, in the order of tables.
    pub const ALL: &'static [Self] =
        &[Self::Norms, Self::PositionBias, Self::PatchEmbedding, Self::Reductions, Self::Linears, Self::Biases];

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Norms => "norms",
            Self::PositionBias => "position_bias",
            Self::PatchEmbedding => "patch_embedding",
            Self::Reductions => "reductions",
            Self::Linears => "linears",
            Self::Biases => "biases",
        }
    }
}

impl FromStr for Pretrained {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("release", Self::ALL, Self::name, name, "these are what a pretrained Swin brings along")
    }
}

/// Which pretrained groups are released to train; what the adapters and heads add always trains.
///
/// ```
/// use tadformer::params::{Pretrained, Release};
/// let release = Release::tadformer().without(Pretrained::PatchEmbedding);
/// assert!(release.contains(Pretrained::Norms) && !release.contains(Pretrained::Linears));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Release(BTreeSet<Pretrained>);

impl Release {
    /// The backbone stays as it is.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// The paper's choice: norms, position biases and the patch embedding.
    pub fn tadformer() -> Self {
        Self::none().with(Pretrained::Norms).with(Pretrained::PositionBias).with(Pretrained::PatchEmbedding)
    }

    /// BitFit's choice: every bias.
    pub fn biases() -> Self {
        Self::none().with(Pretrained::Biases)
    }

    /// The whole backbone, as in full fine-tuning.
    pub fn everything() -> Self {
        Self(Pretrained::ALL.iter().copied().collect())
    }

    /// Releases one more group.
    pub fn with(mut self, group: Pretrained) -> Self {
        self.0.insert(group);
        self
    }

    /// Keeps one group frozen; its biases train all the same while [`Pretrained::Biases`] are released.
    pub fn without(mut self, group: Pretrained) -> Self {
        self.0.remove(&group);
        self
    }

    /// Whether a group is released.
    pub fn contains(&self, group: Pretrained) -> bool {
        self.0.contains(&group)
    }
}

impl Default for Release {
    fn default() -> Self {
        Self::tadformer()
    }
}
