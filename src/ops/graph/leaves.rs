//! The leaves of candle's graph that tensors depend on.

use candle_core::{Tensor, TensorId};
use std::collections::HashSet;

/// The leaves that a stretch of steps depends on, without those that it made itself.
#[derive(Default)]
pub(super) struct Leaves {
    seen: HashSet<TensorId>,
    pub(super) found: Vec<Tensor>,
}

impl Leaves {
    /// These were made on the way.
    pub(super) fn made(&mut self, outputs: &[TensorId]) {
        self.seen.extend(outputs);
    }

    /// Adds those that the tensors depend on.
    pub(super) fn add<'a>(&mut self, tensors: impl IntoIterator<Item = &'a Tensor>) {
        for node in tensors.into_iter().flat_map(|tensor| tensor.sorted_nodes()) {
            if node.is_variable() && self.seen.insert(node.id()) {
                self.found.push(node.clone());
            }
        }
    }
}

/// Whether what was made of the inputs depends on no other leaves than they do.
pub(super) fn are_of(outputs: &[Tensor], inputs: &[Tensor]) -> bool {
    let mut leaves = Leaves::default();
    leaves.add(inputs);
    let of_inputs = leaves.found.len();
    leaves.add(outputs);
    leaves.found.len() == of_inputs
}

/// The leaves that these tensors depend on.
pub(super) fn of(tensors: &[Tensor]) -> Vec<Tensor> {
    let mut leaves = Leaves::default();
    leaves.add(tensors);
    leaves.found
}
