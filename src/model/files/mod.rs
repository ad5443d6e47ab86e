//! A model's files: adapters and full exports, backbones, and where each came from.

mod adapter;
mod backbone;
mod differences;
mod kind;
mod load_report;
mod location;
mod origin;
mod pretrained;

pub(crate) use adapter::ADAPTER;
pub(super) use adapter::weights_of;
pub use adapter::{ModelFile, OpenOptions, Stored};
pub use backbone::{BackboneFile, ConfigFile, WrittenBackbone};
pub use kind::FileKind;
pub use load_report::LoadReport;
pub use origin::{BaseModel, Origin};
