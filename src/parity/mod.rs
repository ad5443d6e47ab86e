//! Parity with PyTorch: the crate's results beside tensors that a peer computed.
//!
//! Golden files are a TADFormer with its outputs and gradients, a folder with one Swin in three formats and its features, losses and
//! metrics, edges as the benchmark scores them, transforms with given parameters, and data sets in their published layouts. A row is a
//! root-mean-square error relative to the tensor's own root mean square, where its file's comparison does not say otherwise: for edges it
//! is how many pixels or counts differ, for a data set the largest difference of any value.

mod compare;
mod edges;
mod figures;
mod golden;
mod row;
#[cfg(feature = "data")]
mod sets;
mod swin;
mod tadformer;
#[cfg(feature = "data")]
mod transforms;

pub use compare::compare;
pub use golden::golden_in;
pub use row::Row;
