//! Edges as the benchmarks score them: odsF and oisF.
//!
//! Truth and prediction are thinned ([`crate::bitmap`]), predicted edges suppressed where a recipe says so, and both matched one to one.

mod counts;
mod disc;
mod matching;
mod meter;
mod raster;
mod recipe;
mod suppression;
mod truth;

pub use counts::BoundaryCounts;
pub use meter::BoundaryMeter;
pub use raster::Raster;
pub use recipe::{BoundaryRecipe, NYUD_DISTANCE, PASCAL_DISTANCE, grey_of};
pub use truth::{BoundaryRule, BoundaryTruth};

#[cfg(test)]
mod tests;
