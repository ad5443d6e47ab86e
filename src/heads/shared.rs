//! A first layer that the decoders of several tasks share.

use crate::params::{Group, Weights, uniform_by_fan_in};
use candle_core::{Result, Tensor};

/// The hidden layer's weight of all HRNet heads that share it, `[4H, H]`, H the sum of their channels; each head adds its own bias.
///
/// Its gradient is the sum of what those heads give it whose own weights train.
///
/// Source: the shared decoder of Free Sinewich (arXiv 2603.21111), less the sines that make this weight another one for each task: a
/// variant of our own.
#[derive(Clone, Debug)]
pub struct SharedHidden {
    weight: Tensor,
}

impl SharedHidden {
    /// Where it stands among the tasks' decoders: no task of a model with such a layer has this name.
    pub const NAME: &str = "shared";

    /// For heads that project their stages to these `channels`, from `weights` at `heads.shared`.
    ///
    /// # Errors
    /// A weight that is missing or of another shape; a name made twice.
    pub fn new(channels: &[usize], weights: &Weights) -> Result<Self> {
        let sum = channels.iter().sum();
        let vb = weights.pp("hidden").adapter(Group::SharedHeads);
        Ok(Self { weight: vb.get_with_hints((4 * sum, sum), "weight", uniform_by_fan_in(sum))? })
    }

    /// The weight as the head at this place reads it: one that is kept from training gives it no gradient.
    pub(super) fn read_at(&self, place: &Weights) -> Tensor {
        place.borrow(&self.weight)
    }
}
