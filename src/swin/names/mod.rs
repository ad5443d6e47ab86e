//! Whose names a checkpoint uses, and timm's for each of them.
//!
//! | family | q, k, v | merging of stage I at | classifier |
//! | --- | --- | --- | --- |
//! | transformers (hub files, and transformers 5's own names) | apart | `encoder.layers.I.downsample` | `classifier` |
//! | timm | together | `layers.I+1.downsample` | `head.fc` |
//! | original, and timm before 0.9 | together | `layers.I.downsample` | `head` |
//! | torchvision | together | `features.2I+2` | `head` |
//! | released TADFormer and MTLoRA | together, linears under `.linear` | `backbone.layers.I.downsample` | none |
//!
//! The names may stand under any prefix: `module.`, `model.`, `backbone.`, `swin.`, `encoder.`.

mod canonical;
mod family;
mod place;
mod recognise;
mod released;
mod timm;
mod torchvision;
mod transformers;
mod write;

pub use canonical::canonical;
pub(crate) use canonical::of_released;
pub use family::Family;
pub use write::Naming;
pub(crate) use write::written;
