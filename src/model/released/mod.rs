//! Checkpoints of the released TADFormer and MTLoRA, imported.

mod config;
mod import;
mod sizes;

pub use import::{ReleasedCode, ReleasedFile};
