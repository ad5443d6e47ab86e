//! Which decoder a task has.

use super::{Head, HrNetConfig, HrNetHead};
use crate::Result;
use crate::params::Weights;
use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};

/// A decoder and its sizes; the default is the paper's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum HeadConfig {
    /// HRNet's.
    #[serde(rename = "hrnet")]
    HrNet(HrNetConfig),
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self::HrNet(HrNetConfig::default())
    }
}

impl From<HrNetConfig> for HeadConfig {
    fn from(config: HrNetConfig) -> Self {
        Self::HrNet(config)
    }
}

impl HeadConfig {
    /// Checks the sizes for an encoder of `stages` stages; `place` is where the decoder stands in a configuration.
    ///
    /// # Errors
    /// The first size that cannot work, with the cure.
    pub fn check(&self, place: &str, stages: usize) -> Result<()> {
        match self {
            Self::HrNet(config) => config.check(place, stages),
        }
    }

    /// Channels that it makes of all stages together, at the finest one's size.
    pub fn channels(&self) -> usize {
        match self {
            Self::HrNet(config) => config.channels.iter().sum(),
        }
    }

    /// The decoder for stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice.
    pub fn build(&self, widths: &[usize], outputs: usize, weights: &Weights) -> CandleResult<Box<dyn Head>> {
        match self {
            Self::HrNet(config) => Ok(Box::new(HrNetHead::new(config, widths, outputs, weights)?)),
        }
    }
}
