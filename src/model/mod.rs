//! The whole model, how it is built, and its files.

mod backbone;
mod base;
mod builder;
mod card;
mod config;
mod extent;
mod file;
mod inference;
mod kind;
mod origin;
mod outputs;
mod pretrained;
mod recipe;
mod released;
mod released_sizes;
mod share;
mod source;
mod tadformer;
mod tasks;

#[doc = include_str!("../../docs/adapter-format.md")]
pub mod format {}

pub use backbone::{BackboneFile, ConfigFile, WrittenBackbone};
pub use base::{BaseModel, LoadReport};
pub use builder::TADFormerBuilder;
pub use card::{CardFile, CardScore, ModelCard};
pub use config::{TADFormerConfig, Tuning};
pub use file::{ModelFile, OpenOptions, Stored};
pub use inference::InferenceModel;
pub use kind::FileKind;
pub use origin::Origin;
pub use outputs::Outputs;
pub use released::{ReleasedCode, ReleasedFile};
pub use tadformer::TADFormer;
