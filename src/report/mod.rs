//! What is written for people: the card beside an adapter, a data set at a glance.

mod card;
#[cfg(feature = "data")]
mod contact_sheet;

pub use card::{CardFile, ModelCard};
#[cfg(feature = "data")]
pub use contact_sheet::contact_sheet;
