//! Folding what is linear, for inference.

/// Whether trained paths are folded into the frozen weights beside them, or these are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Folded, where that saves work: the folded weight stands beside the kept one.
    Fold,
    /// As they were: the folded weights are dropped.
    Restore,
}
