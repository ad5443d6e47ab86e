//! The whole model, how it is built, and its files.

mod base;
mod builder;
mod config;
mod file;
mod inference;
mod outputs;
mod pretrained;
mod tadformer;

pub use base::{BaseModel, LoadReport, Origin};
pub use builder::TADFormerBuilder;
pub use config::{TADFormerConfig, Tuning};
pub use file::{ModelFile, OpenOptions, Stored};
pub use inference::InferenceModel;
pub use outputs::Outputs;
pub use tadformer::TADFormer;
