//! Who owns each weight, what trains, and where values come from.

mod digest;
mod group;
mod initial;
mod ledger;
mod source;
mod table;
mod weights;

pub use digest::SourceDigest;
pub use group::{Group, Pretrained, Release};
pub(crate) use initial::uniform_by_fan_in;
pub use ledger::{Entry, Ledger, Role};
pub(crate) use source::own_source;
pub use source::{checkpoint_source, frozen_source, random_source, shape_source};
pub use table::{GroupCount, ParameterTable};
pub use weights::Weights;
