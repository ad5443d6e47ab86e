//! Everything that settles a model but its weights.

use crate::heads::HrNetConfig;
use crate::named::find_named;
use crate::params::Release;
use crate::swin::SwinConfig;
use crate::tad::Method;
use crate::task::TaskSet;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A model's whole configuration, as it stands in its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TADFormerConfig {
    /// The backbone.
    pub swin: SwinConfig,
    /// What is added to it.
    pub method: Method,
    /// The tasks, in the order of their prompts.
    pub tasks: TaskSet,
    /// The decoders.
    pub head: HrNetConfig,
    /// Which pretrained weights train as well.
    pub release: Release,
}

impl TADFormerConfig {
    /// Checks every field once, and what they multiply to; nothing after it checks again.
    ///
    /// # Errors
    /// The first field that cannot work, with what was expected and the cure; sizes that together ask for more than any model does,
    /// such as prompts times tasks, or over two billion parameters.
    pub fn check(&self) -> Result<()> {
        self.swin.check()?;
        self.method.check(&self.swin)?;
        self.head.check(self.swin.stages())?;
        self.check_extent()
    }
}

/// The usual answers to "what trains": each sets what is added and what is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tuning {
    /// The decoders alone, on plain Swin's features.
    DecodersOnly,
    /// Decoders and shared low-rank paths; the pretrained weights stay.
    LowRankOnly,
    /// The paper's: prompts, low-rank paths, filters, decoders, and the pretrained norms, position biases and patch embedding.
    TADFormer,
    /// Full fine-tuning: decoders and every pretrained weight, nothing added.
    Everything,
}

impl Tuning {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::DecodersOnly, Self::LowRankOnly, Self::TADFormer, Self::Everything];

    /// As written on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecodersOnly => "decoders-only",
            Self::LowRankOnly => "low-rank-only",
            Self::TADFormer => "tadformer",
            Self::Everything => "everything",
        }
    }

    /// What is added at this rank, and what is released.
    pub fn settings(self, rank: usize) -> (Method, Release) {
        match self {
            Self::DecodersOnly => (Method::none(), Release::none()),
            Self::LowRankOnly => (Method::low_rank(rank), Release::none()),
            Self::TADFormer => (Method::tadformer(rank), Release::tadformer()),
            Self::Everything => (Method::none(), Release::everything()),
        }
    }
}

impl FromStr for Tuning {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        find_named("tuning", Self::ALL, Self::name, name, "tadformer is the paper's")
    }
}
