//! Fine-tune one frozen Swin Transformer for many dense vision tasks at once.

pub use candle_core;

#[cfg(feature = "data")]
pub mod data;
mod error;
pub mod sample;
mod task;

pub use error::{Error, Result};
pub use sample::{Batch, Sample};
pub use task::{Task, TaskKind, TaskSet};
pub mod heads;
pub mod layers;
pub mod ops;
pub mod params;
pub mod swin;
pub mod tad;

pub use tad::{DynamicTaskFilter, TADBlock, TaskPrompt};
pub mod files;
pub mod loss;
pub mod metrics;
#[cfg(feature = "data")]
pub mod picture;
