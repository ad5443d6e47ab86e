//! Parity with PyTorch: the crate's results beside tensors that a peer computed.
//!
//! Three kinds of golden files: a TADFormer with its outputs and gradients, a folder with one Swin in three formats and its
//! features, and losses and metrics. Each row is a root-mean-square error relative to the tensor's own root mean square.

mod compare;
mod figures;
mod golden;
mod row;
mod swin;
mod tadformer;

pub use compare::compare;
pub use golden::golden_in;
pub use row::Row;
