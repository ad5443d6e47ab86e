//! What tasks share, beside what they have of their own.

use candle_core::{Result, Tensor};

/// `shared` `[b, N, C]` plus each task's `[T*b, N, C]`.
///
/// # Errors
/// Tensors whose shapes do not fit.
pub(crate) fn add_to_shared(shared: &Tensor, tasks: &Tensor) -> Result<Tensor> {
    let (b, n, c) = shared.dims3()?;
    tasks.reshape(((), b, n, c))?.broadcast_add(shared)?.reshape(tasks.shape())
}

/// `[b, N, C]` once for each task: `[T*b, N, C]`.
///
/// # Errors
/// A tensor of other than three dimensions.
pub(crate) fn for_each_task(x: &Tensor, tasks: usize) -> Result<Tensor> {
    let (b, n, c) = x.dims3()?;
    x.unsqueeze(0)?.broadcast_as((tasks, b, n, c))?.reshape((tasks * b, n, c))
}
