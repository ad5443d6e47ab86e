//! What the two halves of a block share.

use crate::ops::constants::constants;
use candle_core::{Result, Tensor};

/// `x` `[b, ..]` times one factor an image; `None` for 1.
///
/// # Errors
/// Factors and images that do not broadcast.
pub(crate) fn scale_images(x: &Tensor, factors: Option<&[f64]>) -> Result<Tensor> {
    let Some(factors) = factors else { return Ok(x.clone()) };
    let dims = [vec![factors.len()], vec![1; x.rank().saturating_sub(1)]].concat();
    x.broadcast_mul(&constants(factors, dims, x.dtype(), x.device())?)
}
