//! Folding what is linear, for inference.

/// Whether inference reads what is linear folded, trained paths into the frozen weights beside them, or as training does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Folded, where that saves work: the folded weight stands beside the kept one.
    Folded,
    /// As it was: the folded weights are dropped.
    Unfolded,
}
