//! A pretrained layer norm.

use crate::ops::LayerNorm;
use crate::params::{Pretrained, Weights};
use candle_core::Result;
use candle_nn::init::ONE;

/// Over `channels`, from `weights` at this place.
pub(crate) fn layer_norm(channels: usize, weights: &Weights) -> Result<LayerNorm> {
    let weight = weights.pretrained(Pretrained::Norms, channels, "weight", ONE)?;
    Ok(LayerNorm::new(weight, weights.bias(Pretrained::Norms, channels)?))
}
