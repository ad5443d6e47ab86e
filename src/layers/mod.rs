//! The layers that blocks, stages and decoders are made of, what passes between them, and how a forward pass runs them.

mod batch_norm;
mod drop;
mod fold;
mod layer_norm;
mod low_rank;
mod mlp;
mod mode;
mod patch_merging;
mod stage_map;

pub use crate::ops::{FeatureMap, LayerNorm};
pub use batch_norm::BatchNorm;
pub use drop::drop_path;
pub(crate) use drop::{drop_channels, dropout};
pub use fold::Fold;
pub(crate) use layer_norm::layer_norm;
pub use low_rank::{LowRankConfig, LowRankLinear};
pub use mlp::{Mlp, MlpLowRank};
pub use mode::{Mode, TrainingPass};
pub use patch_merging::PatchMerging;
pub use stage_map::{Projection, StageMap};
