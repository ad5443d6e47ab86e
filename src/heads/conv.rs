//! The decoders' 1x1 convolutions with a bias.

use crate::ops::Conv1x1;
use crate::params::{Group, Weights, uniform_by_fan_in};
use candle_core::{Result, Tensor};

/// From `n_in` to `n_out` channels, from `weights` at this place.
pub(super) fn conv1x1(n_in: usize, n_out: usize, weights: &Weights) -> Result<Conv1x1> {
    let weight = weights.adapter(Group::Heads).get_with_hints((n_out, n_in), "weight", uniform_by_fan_in(n_in))?;
    Ok(Conv1x1 { weight, bias: bias(n_in, n_out, weights)? })
}

/// The bias of a convolution of `n_in` channels, from `weights` at this place.
pub(super) fn bias(n_in: usize, n_out: usize, weights: &Weights) -> Result<Tensor> {
    weights.adapter(Group::Heads).get_with_hints(n_out, "bias", uniform_by_fan_in(n_in))
}
