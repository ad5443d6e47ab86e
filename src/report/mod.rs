//! What is written for people: the card beside an adapter.

mod card;

pub use card::{CardFile, ModelCard};
