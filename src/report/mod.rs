//! What is written for people: the card beside an adapter, and what an evaluation found.

mod card;
#[cfg(feature = "report")]
mod evaluation;

pub use card::{CardFile, ModelCard};
#[cfg(feature = "report")]
pub use evaluation::{
    Confusion, CurvePoint, EvaluatedModel, EvaluatedTask, EvaluationReport, Example, Histogram, Rank,
};
