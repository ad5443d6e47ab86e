//! A layer norm whose gradient candle can make.

use crate::ops::Norm;
use crate::params::{Pretrained, Weights};
use candle_core::{Module, Result, Tensor};
use candle_nn::init::{ONE, ZERO};

/// `(x - mean) / sqrt(var + 1e-5) * weight + bias` over the last dimension.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    norm: Norm,
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    /// From its scale and shift, each `[C]`.
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { norm: Norm { weight, bias, eps: Self::EPS } }
    }

    /// `[.., C]` to `[.., C]`.
    ///
    /// # Errors
    /// A last dimension other than C.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(x)
    }

    /// Its weights.
    pub fn norm(&self) -> &Norm {
        &self.norm
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(x)
    }
}

/// A pretrained norm over `channels`, from `weights` at this place.
pub(crate) fn layer_norm(channels: usize, weights: &Weights) -> candle_core::Result<LayerNorm> {
    let weight = weights.pretrained(Pretrained::Norms, channels, "weight", ONE)?;
    Ok(LayerNorm::new(weight, weights.pretrained(Pretrained::Norms, channels, "bias", ZERO)?))
}
