//! How a predicted map becomes one map of edges for each threshold.

use super::raster::Raster;
use super::suppression::suppress;
use crate::named::find_named;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How far, as a share of the image's diagonal, a predicted pixel may lie from its true one on PASCAL (and BSDS).
pub const PASCAL_DISTANCE: f64 = 0.0075;
/// The same on NYUD.
pub const NYUD_DISTANCE: f64 = 0.011;

/// Which pixels of a predicted map are edges at a threshold, before they are thinned. Figures of the one are not comparable with the
/// other's, and papers seldom say which they used.
///
/// `p` is the predicted probability as 8-bit grey, 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BoundaryRecipe {
    /// `p / 255 >= t` at 99 thresholds 0.01 .. 0.99: MTI-Net's.
    Plain,
    /// `e > t` in single precision at 101 thresholds 0.001, 0.01 .. 0.99, 0.999, where `e` is `p / 255` after non-maximum suppression,
    /// faded over the 5 pixels next to the rim: the script released with ASTMT, ATRC, InvPT, TaskPrompter and TADFormer.
    Suppressed,
}

impl BoundaryRecipe {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Plain, Self::Suppressed];

    /// Its name in configurations and on command lines: `plain` or `suppressed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Suppressed => "suppressed",
        }
    }

    /// The thresholds, ascending.
    pub fn thresholds(self) -> Vec<f64> {
        let hundredths = (1..100).map(|k| f64::from(k) / 100.0);
        match self {
            Self::Plain => hundredths.collect(),
            Self::Suppressed => [0.001].into_iter().chain(hundredths).chain([0.999]).collect(),
        }
    }

    /// How many of the thresholds each pixel of a predicted map passes: at the k-th (from 0) those are edges whose level is above k.
    pub fn levels(self, prediction: Raster<'_, u8>) -> Vec<u8> {
        let thresholds = self.thresholds();
        match self {
            Self::Plain => {
                let level = |p: u8| thresholds.iter().filter(|t| f64::from(p) / 255.0 >= **t).count() as u8;
                let levels: Vec<u8> = (0..=u8::MAX).map(level).collect();
                prediction.values().iter().map(|p| levels[usize::from(*p)]).collect()
            }
            Self::Suppressed => {
                let [height, width] = prediction.size();
                let edges: Vec<f32> = prediction.values().iter().map(|p| f32::from(*p) / 255.0).collect();
                let thresholds: Vec<f32> = thresholds.into_iter().map(|t| t as f32).collect();
                let level = |e: &f32| thresholds.partition_point(|t| e > t) as u8;
                suppress(&edges, height, width).iter().map(level).collect()
            }
        }
    }
}

impl FromStr for BoundaryRecipe {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("recipe of edges", Self::ALL, Self::name, name, "plain is MTI-Net's, suppressed InvPT's and ASTMT's")
    }
}

/// Probabilities as 8-bit grey, `255 p` truncated, as the benchmark's files hold them.
///
/// # Errors
/// A value that is not from 0 to 1.
pub fn grey_of(probabilities: Raster<'_, f32>) -> Result<Vec<u8>> {
    let grey = probabilities.values().iter().map(|p| {
        let wrong =
            || Error::config("probability of an edge", "a number from 0 to 1", p, "take the sigmoid of the outputs");
        if (0.0..=1.0).contains(p) { Ok((255.0 * p) as u8) } else { Err(wrong()) }
    });
    grey.collect()
}
