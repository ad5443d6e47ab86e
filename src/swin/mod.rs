//! The frozen backbone, Swin Transformer (arXiv 2103.14030); it knows prompts as extra tokens, and no tasks.

mod attention;
mod backbone;
mod block;
mod config;
mod config_json;
mod extent;
mod infer;
mod merging;
pub mod names;
mod patch_embed;
mod presets;
mod stage;

pub use attention::WindowAttention;
pub use backbone::{Swin, SwinFeatures};
pub use block::{BlockConfig, BlockParts, PromptUpdate, SwinBlock, Tokens};
pub use config::{BlockLowRank, SwinConfig};
pub use config_json::MOST_CONFIG_BYTES;
pub(crate) use config_json::Published;
pub use merging::{PatchMerging, Projection, StageMap};
pub use patch_embed::PatchEmbed;
pub use presets::Preset;
pub use stage::{StagePlan, SwinStage};

use crate::layers::LayerNorm;
use crate::params::{Pretrained, Weights};
use candle_nn::init::{ONE, ZERO};

/// A pretrained norm over `channels`, from `weights` at this place.
fn layer_norm(channels: usize, weights: &Weights) -> candle_core::Result<LayerNorm> {
    let weight = weights.pretrained(Pretrained::Norms, channels, "weight", ONE)?;
    Ok(LayerNorm::new(weight, weights.pretrained(Pretrained::Norms, channels, "bias", ZERO)?))
}
