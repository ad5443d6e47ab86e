//! What the two halves of a block share.

use crate::ops::constants::constants;
use crate::ops::cpu::{Real, Values, values};
use candle_core::{Result, Tensor};
use std::slice::Iter;

/// `x` `[b, ..]` times one factor an image; `None` for 1.
///
/// # Errors
/// Factors and images that do not broadcast.
pub(crate) fn scale_images(x: &Tensor, factors: Option<&[f64]>) -> Result<Tensor> {
    let Some(factors) = factors else { return Ok(x.clone()) };
    let dims = [vec![factors.len()], vec![1; x.rank().saturating_sub(1)]].concat();
    x.broadcast_mul(&constants(factors, dims, x.dtype(), x.device())?)
}

/// The gradients of a half's outputs, one after the other.
pub(super) struct OutputGradients<'a>(Iter<'a, Option<Tensor>>);

impl<'a> OutputGradients<'a> {
    pub(super) fn of(outputs: &'a [Option<Tensor>]) -> Self {
        Self(outputs.iter())
    }

    /// That of the next output where the half gives it, as a slice; `None` where nothing reads it.
    pub(super) fn next<T: Real>(&mut self, given: bool) -> Result<Option<Values<'a, T>>> {
        let gradient = if given { self.0.next() } else { None };
        gradient.and_then(Option::as_ref).map(values).transpose()
    }
}
