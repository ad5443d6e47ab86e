//! The six tasks' losses, and their weighted sum.
//!
//! Outputs are `[B, n, H, W]` scores at the labels' size; labels `[B, c, H, W]` f32, [`IGNORE`]
//! where nothing is known. Ignored pixels leave sums, weights and counts; a batch without a valid pixel has loss 0 and no
//! gradient. So an image without a task's label counts as if the batch had held the others alone; only the statistics of the decoders' batch
//! norm are made of all images. Half precision is computed in f32.

mod balanced_bce;
mod cross_entropy;
mod l1;
mod multi_task;

pub use balanced_bce::{PositiveWeight, balanced_bce};
pub use cross_entropy::cross_entropy;
pub use l1::{depth_l1, normals_l1};
#[cfg(feature = "train")]
pub(crate) use multi_task::UnreadLosses;
pub use multi_task::{LossReport, MultiTaskLoss, default_weight, task_loss};

use crate::sample::IGNORE;

#[cfg(test)]
mod tests;
