//! The second half of a block: its step, and its kernel by blocks of rows.

mod backward;
mod forward;
mod kernel;
mod step;

pub use step::{MlpHalf, MlpIntermediates};

#[cfg(test)]
mod tests;
