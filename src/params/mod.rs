//! Who owns each weight, what trains, and what a load found.

mod checkpoint;
mod digest;
mod format;
mod group;
mod initial;
mod ledger;
mod nearest;
mod opened;
mod pickle;
mod pth;
mod safetensors;
mod source;
mod table;
mod values;
mod weights;

pub(crate) use checkpoint::Made;
pub use checkpoint::{Checkpoint, checkpoint_source};
pub use digest::SourceDigest;
pub use group::{Group, Pretrained, Release};
pub(crate) use initial::uniform_by_fan_in;
pub use ledger::{Entry, Ledger, Role};
pub use nearest::nearest;
pub use source::{frozen_source, random_source, shape_source};
pub use table::{GroupCount, ParameterTable};
pub use weights::Weights;
