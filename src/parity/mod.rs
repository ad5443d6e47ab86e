//! Parity with PyTorch: the crate's results beside tensors that a peer computed.
//!
//! Four kinds of golden files: a TADFormer with its outputs and gradients, a folder with one Swin in three formats and its features,
//! losses and metrics, and edges as the benchmark scores them. Each row is a root-mean-square error relative to the tensor's own root
//! mean square; for edges it is how many pixels or counts differ.

mod compare;
mod edges;
mod figures;
mod golden;
mod row;
mod swin;
mod tadformer;

pub use compare::compare;
pub use golden::golden_in;
pub use row::Row;
