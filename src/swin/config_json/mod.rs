//! The sizes of a Swin in the `config.json` beside its weights: transformers' or timm's.

mod read;
mod write;

pub use read::MOST_CONFIG_BYTES;
pub(crate) use read::Published;
