//! A file of tensors, whatever its format.

mod file;
mod format;
mod nearest;
mod opened;
mod pickle;
mod pth;
mod safetensors;
mod values;

pub use file::Checkpoint;
pub(crate) use file::Made;
pub use nearest::nearest;
