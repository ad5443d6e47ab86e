//! Which linears of a block are adapted, and by what.

use super::alone::alone;
use crate::layers::LowRankConfig;
use crate::swin::{BlockLowRank, SwinConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Sizes of `scale`: beyond them a path is nothing beside its linear, or everything, and half-precision floats end.
const SCALES: RangeInclusive<f64> = 1e-4..=1e4;

/// A linear layer of a block that can be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdaptedLinear {
    /// Queries, keys and values.
    Qkv,
    /// Attention's output.
    Proj,
    /// The MLP's first layer.
    Fc1,
    /// The MLP's second layer.
    Fc2,
}

impl AdaptedLinear {
    /// As it stands in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::Proj => "proj",
            Self::Fc1 => "fc1",
            Self::Fc2 => "fc2",
        }
    }
}

/// What the linears of every block carry beside their frozen weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinearAdapter {
    /// Nothing.
    #[serde(deserialize_with = "alone")]
    None,
    /// Trained low-rank paths.
    LowRank(LowRank),
}

/// Low-rank paths `s B (A x)` beside the linears of every block.
///
/// ```
/// use tadformer::tad::{AdaptedLinear, LowRank};
/// let attention = LowRank::new(8).on([AdaptedLinear::Qkv, AdaptedLinear::Proj]).dropout(0.0);
/// assert_eq!((attention.rank, attention.scale), (vec![8], 4.0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LowRank {
    /// Which linears carry them.
    pub on: BTreeSet<AdaptedLinear>,
    /// Rank r of each stage; one value serves all.
    pub rank: Vec<usize>,
    /// Factor s of every path; it is not divided by the rank.
    pub scale: f64,
    /// Dropout on the input of the shared paths, in training.
    pub dropout: f64,
}

impl LowRank {
    /// The paper's: on every linear, with a scale of 4 and a dropout of 0.05.
    pub fn new(rank: usize) -> Self {
        use AdaptedLinear::{Fc1, Fc2, Proj, Qkv};
        Self { on: [Qkv, Proj, Fc1, Fc2].into(), rank: vec![rank], scale: 4.0, dropout: 0.05 }
    }

    /// On these linears alone.
    pub fn on(self, linears: impl IntoIterator<Item = AdaptedLinear>) -> Self {
        Self { on: linears.into_iter().collect(), ..self }
    }

    /// A rank for each stage.
    pub fn ranks(self, ranks: impl Into<Vec<usize>>) -> Self {
        Self { rank: ranks.into(), ..self }
    }

    /// Another factor s.
    pub fn scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// Another dropout.
    pub fn dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// The rank of stage `i`.
    pub fn stage_rank(&self, i: usize) -> usize {
        self.rank.get(i).or(self.rank.last()).copied().unwrap_or(0)
    }

    /// The paths of a block of stage `i`.
    fn block(&self, i: usize) -> BlockLowRank {
        let path = LowRankConfig { rank: self.stage_rank(i), scale: self.scale, dropout: self.dropout };
        let on = |linear| self.on.contains(&linear).then_some(path);
        BlockLowRank {
            qkv: on(AdaptedLinear::Qkv),
            proj: on(AdaptedLinear::Proj),
            fc1: on(AdaptedLinear::Fc1),
            fc2: on(AdaptedLinear::Fc2),
        }
    }

    fn check(&self, swin: &SwinConfig) -> Result<()> {
        if self.on.is_empty() {
            return Err(Error::config(
                "linears.on",
                "at least one linear",
                "none",
                "`LinearAdapter::None` adapts none",
            ));
        }
        self.check_rank(swin)?;
        if !SCALES.contains(&self.scale.abs()) {
            let expected = format!("a number from {:?} to {:?}, or its negative", SCALES.start(), SCALES.end());
            return Err(Error::config("scale", expected, format!("{:?}", self.scale), "the paper uses 4"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let expected = "from 0 up to, not including, 1";
            return Err(Error::config("dropout", expected, self.dropout, "the paper uses 0.05"));
        }
        Ok(())
    }

    fn check_rank(&self, swin: &SwinConfig) -> Result<()> {
        let stages = swin.stages();
        if self.rank.len() != 1 && self.rank.len() != stages {
            let expected = format!("one value, or one for each of {stages} stages");
            return Err(Error::config("rank", expected, self.rank.len(), "one value serves all stages"));
        }
        for (i, rank) in self.rank.iter().enumerate() {
            // One value serves all stages, so that it may be more than the narrow ones can use.
            let widest = if self.rank.len() == 1 { stages - 1 } else { i };
            let most = swin.channels(widest);
            if *rank > most {
                let expected = format!("at most {most}, the channels of stage {widest}");
                return Err(Error::config("rank", expected, rank, "the paper uses 16 to 64"));
            }
        }
        if self.rank.contains(&0) {
            let cure = "use `Tuning::DecodersOnly` to train heads alone";
            return Err(Error::config("rank", "at least 1", 0, cure));
        }
        Ok(())
    }
}

impl From<LowRank> for LinearAdapter {
    fn from(low_rank: LowRank) -> Self {
        Self::LowRank(low_rank)
    }
}

impl LinearAdapter {
    /// The same with low-rank paths of this rank at every stage.
    pub(super) fn with_rank(self, rank: usize) -> Self {
        match self {
            Self::None => LowRank::new(rank).into(),
            Self::LowRank(low_rank) => low_rank.ranks([rank]).into(),
        }
    }

    /// The rank of stage `i`; 0 without low-rank paths.
    pub(super) fn stage_rank(&self, i: usize) -> usize {
        match self {
            Self::None => 0,
            Self::LowRank(low_rank) => low_rank.stage_rank(i),
        }
    }

    /// The low-rank paths of a block of stage `i`.
    pub(super) fn block_low_rank(&self, i: usize) -> BlockLowRank {
        match self {
            Self::None => BlockLowRank::default(),
            Self::LowRank(low_rank) => low_rank.block(i),
        }
    }

    /// Whether a task's path can lead through one of them: qkv is shared by the tasks.
    pub(super) fn is_on_task_paths(&self) -> bool {
        match self {
            Self::None => false,
            Self::LowRank(low_rank) => low_rank.on.iter().any(|linear| *linear != AdaptedLinear::Qkv),
        }
    }

    pub(super) fn check(&self, swin: &SwinConfig) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::LowRank(low_rank) => low_rank.check(swin),
        }
    }
}
