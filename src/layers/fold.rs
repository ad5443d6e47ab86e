//! Folding what is linear, for inference.

/// Whether what is linear is folded for inference, trained paths into the frozen weights beside them, or is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Folded, where that saves work: the folded weight stands beside the kept one.
    Fold,
    /// Kept apart, because tasks read the frozen products alone: the frozen weights are only laid out as inference reads them.
    Apart,
    /// As they were: the folded weights are dropped.
    Restore,
}
