//! One map under its depth-wise filter: pooling, the convolution and its gradients, on slices.

mod convolution;
mod neighbours;
mod pooling;
mod size;
mod tap_gradients;

pub(in crate::ops) use size::MapSize;

#[cfg(test)]
mod tests;
