//! Per-task decoders behind one trait.
//!
//! | name | decoder | reads | parameters for 21 classes on Swin-T |
//! | --- | --- | --- | --- |
//! | `hrnet` | [`HrNetHead`], the paper's | all stages, projected to 18, 36, 72, 144 channels | 500,709 |
//! | `hrnet-shared` | the same, its hidden weight one for all such tasks: [`SharedHidden`] | the same | 291,600 of them once for all |
//! | `segformer` | [`SegFormerHead`] | all stages, embedded to 256 channels | 809,749 |
//! | `aspp` | [`AsppHead`], DeepLabV3's | all stages, projected as `hrnet` does | 3,114,133 |
//! | `linear` | [`LinearHead`] | all stages | 44,373 |
//!
//! Every decoder gives its outputs at the finest stage's size, an eighth of the image's; the model resizes them to the image's.

mod aspp;
mod config;
mod conv;
mod hrnet;
mod linear;
mod projections;
mod segformer;
mod shared;
mod sizes;

pub use aspp::{AsppConfig, AsppHead};
pub use config::HeadConfig;
pub use hrnet::{HrNetConfig, HrNetHead};
pub use linear::{LinearConfig, LinearHead};
pub use segformer::{SegFormerConfig, SegFormerHead};
pub use shared::SharedHidden;

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
