//! The whole model, how it is built, and its files.

mod builder;
mod config;
mod decoders;
mod extent;
mod files;
mod freeze;
mod held;
mod inference;
mod outputs;
mod released;
mod share;
mod tadformer;
mod tasks;

#[doc = include_str!("../../docs/adapter-format.md")]
pub mod format {}

pub use builder::TADFormerBuilder;
pub use config::{TADFormerConfig, Tuning};
pub(crate) use files::ADAPTER;
pub use files::{
    BackboneFile, BaseModel, ConfigFile, FileKind, LoadReport, ModelFile, OpenOptions, Origin, Stored, WrittenBackbone,
};
pub use inference::InferenceModel;
pub use outputs::Outputs;
pub use released::{ReleasedCode, ReleasedFile};
pub use tadformer::TADFormer;
