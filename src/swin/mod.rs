//! The frozen backbone, Swin Transformer (arXiv 2103.14030); it knows prompts as extra tokens, and no tasks.

mod attention;
mod backbone;
mod block;
mod block_config;
mod config;
mod config_json;
mod extent;
mod infer;
pub mod names;
mod patch_embed;
mod presets;
mod stage;

pub use attention::WindowAttention;
pub use backbone::{Swin, SwinFeatures};
pub(crate) use block::BlockIntermediates;
pub use block::SwinBlock;
pub use block_config::{BlockConfig, PromptUpdate, Tokens};
pub use config::{BlockLowRank, SwinConfig};
pub use config_json::MOST_CONFIG_BYTES;
pub(crate) use config_json::Published;
pub use patch_embed::PatchEmbed;
pub use presets::Preset;
pub use stage::{StagePlan, SwinStage};
