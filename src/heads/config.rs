//! Which decoder a task has.

use super::{AsppConfig, AsppHead, Head, HrNetConfig, HrNetHead, LinearConfig, LinearHead};
use super::{SegFormerConfig, SegFormerHead, SharedHidden};
use crate::params::Weights;
use crate::{Error, Result};
use candle_core::Result as CandleResult;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A decoder and its sizes; the default is the paper's. A name makes one of its published sizes.
///
/// ```
/// use tadformer::heads::{AsppConfig, HeadConfig};
/// assert_eq!("aspp".parse::<HeadConfig>()?, AsppConfig::default().into());
/// assert!("unet".parse::<HeadConfig>().is_err());
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[non_exhaustive]
pub enum HeadConfig {
    /// HRNet's, the paper's: [`HrNetHead`].
    #[serde(rename = "hrnet")]
    HrNet(HrNetConfig),
    /// HRNet's with one hidden weight for all tasks that have this kind: [`SharedHidden`].
    #[serde(rename = "hrnet-shared")]
    HrNetShared(HrNetConfig),
    /// SegFormer's: [`SegFormerHead`].
    #[serde(rename = "segformer")]
    SegFormer(SegFormerConfig),
    /// DeepLabV3's: [`AsppHead`].
    #[serde(rename = "aspp")]
    Aspp(AsppConfig),
    /// One linear map: [`LinearHead`].
    #[serde(rename = "linear")]
    Linear(LinearConfig),
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

impl From<SegFormerConfig> for HeadConfig {
    fn from(config: SegFormerConfig) -> Self {
        Self::SegFormer(config)
    }
}

impl From<AsppConfig> for HeadConfig {
    fn from(config: AsppConfig) -> Self {
        Self::Aspp(config)
    }
}

impl From<LinearConfig> for HeadConfig {
    fn from(config: LinearConfig) -> Self {
        Self::Linear(config)
    }
}

impl FromStr for HeadConfig {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = Self::published();
        let names = all.each_ref().map(Self::name).join(", ");
        let named = all.into_iter().find(|head| head.name() == name);
        named.ok_or_else(|| Error::config("head", format!("one of {names}"), name, "hrnet is the paper's"))
    }
}

impl HeadConfig {
    /// One of each kind, of the published sizes for four stages.
    pub fn published() -> [Self; 5] {
        [
            HrNetConfig::default().into(),
            Self::HrNetShared(HrNetConfig::default()),
            SegFormerConfig::default().into(),
            AsppConfig::default().into(),
            LinearConfig::default().into(),
        ]
    }

    /// The kind's name, in files and on command lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HrNet(_) => "hrnet",
            Self::HrNetShared(_) => "hrnet-shared",
            Self::SegFormer(_) => "segformer",
            Self::Aspp(_) => "aspp",
            Self::Linear(_) => "linear",
        }
    }

    /// Checks the sizes for an encoder of `stages` stages; `place` is where the decoder stands in a configuration.
    ///
    /// # Errors
    /// The first size that cannot work, with the cure.
    pub fn check(&self, place: &str, stages: usize) -> Result<()> {
        match self {
            Self::HrNet(config) | Self::HrNetShared(config) => config.check(place, stages),
            Self::SegFormer(config) => config.check(place),
            Self::Aspp(config) => config.check(place, stages),
            Self::Linear(LinearConfig {}) => Ok(()),
        }
    }

    /// The sizes of the layer that it shares with the other decoders of its kind, if it does.
    pub fn shared(&self) -> Option<&HrNetConfig> {
        if let Self::HrNetShared(config) = self { Some(config) } else { None }
    }

    /// Channels of its widest map at the finest stage's size, for an encoder of `stages` stages and outputs apart.
    pub fn channels(&self, stages: usize) -> usize {
        match self {
            Self::HrNet(config) | Self::HrNetShared(config) => config.sum(),
            Self::SegFormer(config) => config.channels * stages,
            Self::Aspp(config) => config.branches().max(config.channels.iter().sum()),
            Self::Linear(LinearConfig {}) => 0,
        }
    }

    /// The decoder for stages of these `widths` and a task of `outputs` channels, from `weights` at `heads.TASK`; `shared` is the
    /// layer of [`HeadConfig::shared`].
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a name made twice; a decoder that shares a layer without that layer.
    pub fn build(
        &self,
        widths: &[usize],
        outputs: usize,
        shared: Option<&SharedHidden>,
        weights: &Weights,
    ) -> CandleResult<Box<dyn Head>> {
        Ok(match (self, shared) {
            (Self::HrNet(config), _) => Box::new(HrNetHead::new(config, widths, outputs, weights)?),
            (Self::HrNetShared(config), Some(shared)) => {
                Box::new(HrNetHead::sharing(shared, config, widths, outputs, weights)?)
            }
            (Self::HrNetShared(_), None) => candle_core::bail!("{}: expected the layer that it shares", self.name()),
            (Self::SegFormer(config), _) => Box::new(SegFormerHead::new(config, widths, outputs, weights)?),
            (Self::Aspp(config), _) => Box::new(AsppHead::new(config, widths, outputs, weights)?),
            (Self::Linear(LinearConfig {}), _) => Box::new(LinearHead::new(widths, outputs, weights)?),
        })
    }
}
