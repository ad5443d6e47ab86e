//! Parity with PyTorch: the crate's results beside tensors that a peer computed.
//!
//! Five kinds of golden files: a TADFormer with its outputs and gradients, a folder with one Swin in three formats and its features,
//! losses and metrics, edges as the benchmark scores them, and data sets in their published layouts. Each row is a root-mean-square error
//! relative to the tensor's own root mean square; for edges it is how many pixels or counts differ, for a data set the largest difference
//! of any value.

mod compare;
mod edges;
mod figures;
mod golden;
mod row;
#[cfg(feature = "data")]
mod sets;
mod swin;
mod tadformer;

pub use compare::compare;
pub use golden::golden_in;
pub use row::Row;
