//! What is written for people: the card beside an adapter, a data set at a glance, and what an evaluation found.

mod card;
#[cfg(feature = "data")]
mod contact_sheet;
#[cfg(feature = "report")]
mod evaluation;

pub use card::{CardFile, ModelCard};
#[cfg(feature = "data")]
pub use contact_sheet::contact_sheet;
#[cfg(feature = "report")]
pub use evaluation::{EvaluatedModel, EvaluatedTask, EvaluationReport, Example, Rank};
