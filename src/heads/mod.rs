//! Per-task decoders behind one trait.

mod config;
mod hrnet;

pub use config::HeadConfig;
pub use hrnet::{HrNetConfig, HrNetHead};

use crate::layers::{Fold, Mode, PatchMerging, StageMap};
use candle_core::{Result, Tensor};

/// A task's decoder: from one map a stage to the task's outputs.
pub trait Head: Send + Sync + std::fmt::Debug {
    /// Maps of `[B, N_i, C_i]`, finest first, to `[B, n, h, w]` at some resolution; the model resizes it to the image's.
    ///
    /// # Errors
    /// Maps of other channels than the head was made for; in training, a single value for each channel.
    fn forward(&self, stages: &[StageMap], mode: Mode) -> Result<Tensor>;

    /// Folds what is linear for inference, or drops what was folded; `mergings` are those still to come for the stages' maps.
    ///
    /// # Errors
    /// Mergings of other channels than the projections.
    fn fold(&mut self, how: Fold, mergings: &[Option<&PatchMerging>]) -> Result<()>;
}
