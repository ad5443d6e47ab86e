//! The first half of a block: its step, and its kernel by blocks of windows.

mod backward;
mod forward;
mod kernel;
mod step;

pub use step::{Attended, AttentionHalf, AttentionIntermediates};

#[cfg(test)]
mod tests;
