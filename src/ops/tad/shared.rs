//! What tasks share, added to what they have of their own.

use candle_core::{Result, Tensor};

/// `shared` `[b, N, C]` plus each task's `[T*b, N, C]`.
pub(in crate::ops) fn add_to_shared(shared: &Tensor, tasks: &Tensor) -> Result<Tensor> {
    let (b, n, c) = shared.dims3()?;
    tasks.reshape(((), b, n, c))?.broadcast_add(shared)?.reshape(tasks.shape())
}
