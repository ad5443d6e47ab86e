//! Streaming metrics of the six tasks, delta_m, and the constant prediction to compare with.

mod boundary;
mod constant;
mod delta;
mod depth;
mod edge;
mod labels;
mod meter;
mod normals;
mod saliency;
mod score;
mod segmentation;

pub use boundary::{
    BoundaryCounts, BoundaryMeter, BoundaryRecipe, BoundaryRule, BoundaryTruth, NYUD_DISTANCE, PASCAL_DISTANCE, Raster,
    grey_of,
};
pub use constant::{ConstantMeter, ConstantPrediction};
pub use delta::{NYUD_SINGLE_TASK, PASCAL_SINGLE_TASK, delta_m};
pub use meter::Meter;
pub use score::{PrecisionRecall, Score, Scores};

#[cfg(test)]
mod tests;
