//! Fine-tune one frozen Swin Transformer for many dense vision tasks at once.

pub use candle_core;

#[cfg(feature = "data")]
pub mod data;
mod device;
mod error;
pub mod files;
pub mod heads;
pub mod layers;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod params;
pub mod parity;
#[cfg(feature = "data")]
pub mod picture;
#[cfg(feature = "data")]
pub mod predict;
pub mod sample;
pub mod swin;
pub mod tad;
mod task;
#[cfg(feature = "train")]
pub mod train;

pub use device::parse_device;
pub use error::{Error, Result};
pub use model::{Outputs, TADFormer, TADFormerBuilder, TADFormerConfig, Tuning};
#[cfg(feature = "data")]
pub use predict::Predictor;
pub use sample::{Batch, Sample};
pub use swin::SwinConfig;
pub use tad::{DynamicTaskFilter, TADBlock, TaskPrompt};
pub use task::{Task, TaskKind, TaskSet};
