//! What is added to the backbone, with the paper's values as defaults.

use crate::layers::LowRankConfig;
use crate::ops::TpcReading;
use crate::swin::{BlockLowRank, SwinConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// A linear layer of a block that can carry a low-rank path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// What stands between A and B on a task's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskFilterKind {
    /// The paper's: a depth-wise filter made from each input's own context, shared by the tasks.
    Dynamic {
        /// Side of the filter: odd, at least 3.
        kernel: usize,
    },
    /// The released code's: one learned depth-wise filter for each task.
    Static {
        /// Side of the filter: odd, at least 3.
        kernel: usize,
    },
    /// Nothing.
    None,
}

/// Whether the last block of each stage makes tokens for each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskPaths {
    /// It does: the task-adapting block.
    PerTask,
    /// It does not: every task's decoder reads the shared tokens.
    Shared,
}

/// How a stage mixes a task's TPC feature with its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Gate {
    /// `g tpc + (1 - g) x`, g the sigmoid of one learned scalar a stage that starts at 0.
    Learned,
    /// `(tpc + x) / 2`.
    Average,
    /// `x`.
    None,
}

/// Prompts of all tasks together, which stand in every window; the paper uses 4.
pub(crate) const MOST_PROMPTS: usize = 512;
/// Sizes of `scale`: beyond them a path is nothing beside its linear, or everything, and half-precision floats end.
const SCALES: RangeInclusive<f64> = 1e-4..=1e4;

/// Prompts, low-rank paths and task filters. The default is the paper's at rank 64.
///
/// ```
/// use tadformer::tad::{TadConfig, TaskFilterKind};
/// let wide = TadConfig { filter: TaskFilterKind::Dynamic { kernel: 5 }, ..TadConfig::with_rank(16) };
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TadConfig {
    /// Rank r of each stage; one value serves all.
    pub rank: Vec<usize>,
    /// Factor s of every low-rank path; it is not divided by the rank.
    pub scale: f64,
    /// Dropout on the input of the shared low-rank paths, in training.
    pub dropout: f64,
    /// Which linears carry low-rank paths.
    pub linears: BTreeSet<AdaptedLinear>,
    /// Prompts l of each task; 0 for none.
    pub prompts_per_task: usize,
    /// Whether tasks have tokens of their own.
    pub task_paths: TaskPaths,
    /// What stands between A and B on a task's path.
    pub filter: TaskFilterKind,
    /// How a stage mixes the TPC feature in.
    pub gate: Gate,
    /// How the gate reads the TPC feature.
    pub tpc_reading: TpcReading,
}

impl Default for TadConfig {
    fn default() -> Self {
        Self::with_rank(64)
    }
}

impl TadConfig {
    /// The paper's configuration at another rank.
    pub fn with_rank(rank: usize) -> Self {
        use AdaptedLinear::{Fc1, Fc2, Proj, Qkv};
        Self {
            rank: vec![rank],
            scale: 4.0,
            dropout: 0.05,
            linears: [Qkv, Proj, Fc1, Fc2].into(),
            prompts_per_task: 1,
            task_paths: TaskPaths::PerTask,
            filter: TaskFilterKind::Dynamic { kernel: 3 },
            gate: Gate::Learned,
            tpc_reading: TpcReading::Positions,
        }
    }

    /// Shared low-rank paths alone: no prompts, no task paths.
    pub fn low_rank_only(rank: usize) -> Self {
        Self { prompts_per_task: 0, task_paths: TaskPaths::Shared, gate: Gate::None, ..Self::with_rank(rank) }
    }

    /// Nothing at all: the backbone's features as they are.
    pub fn none() -> Self {
        Self { linears: BTreeSet::new(), ..Self::low_rank_only(0) }
    }

    /// The rank of stage `i`.
    pub fn stage_rank(&self, i: usize) -> usize {
        self.rank.get(i).or(self.rank.last()).copied().unwrap_or(0)
    }

    /// The low-rank paths of a block of stage `i`.
    pub fn block_low_rank(&self, i: usize) -> BlockLowRank {
        let path = LowRankConfig { rank: self.stage_rank(i), scale: self.scale, dropout: self.dropout };
        let on = |linear| self.linears.contains(&linear).then_some(path);
        BlockLowRank {
            qkv: on(AdaptedLinear::Qkv),
            proj: on(AdaptedLinear::Proj),
            fc1: on(AdaptedLinear::Fc1),
            fc2: on(AdaptedLinear::Fc2),
        }
    }

    /// Whether anything mixes the TPC feature into a task's tokens.
    pub fn has_prompts(&self) -> bool {
        self.prompts_per_task > 0
    }

    /// Checks every field once, for a backbone; nothing after it checks again.
    ///
    /// ```
    /// use tadformer::{SwinConfig, tad::TadConfig};
    /// TadConfig::with_rank(16).check(&SwinConfig::tiny())?;
    /// let none = TadConfig::with_rank(0).check(&SwinConfig::tiny());
    /// assert!(none.unwrap_err().to_string().starts_with("`rank`"));
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first field that cannot work, with the cure.
    pub fn check(&self, swin: &SwinConfig) -> Result<()> {
        self.check_rank(swin)?;
        self.check_filter()?;
        if !SCALES.contains(&self.scale.abs()) {
            let expected = format!("a number from {:?} to {:?}, or its negative", SCALES.start(), SCALES.end());
            return Err(Error::config("scale", expected, format!("{:?}", self.scale), "the paper uses 4"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(
                "dropout",
                "from 0 up to, not including, 1",
                self.dropout,
                "the paper uses 0.05",
            ));
        }
        if self.prompts_per_task > MOST_PROMPTS {
            let expected = format!("at most {MOST_PROMPTS}");
            return Err(Error::config("prompts_per_task", expected, self.prompts_per_task, "the paper uses 1"));
        }
        if self.has_prompts() && self.task_paths == TaskPaths::Shared {
            let cure = "prompts condition the tasks' paths: set `prompts_per_task` to 0 or `task_paths` to per_task";
            return Err(Error::config("prompts_per_task", "0 with shared task paths", self.prompts_per_task, cure));
        }
        if !self.has_prompts() && self.gate != Gate::None {
            let cure = "without prompts there is no TPC feature to mix in";
            return Err(Error::config("gate", "none without prompts", format!("{:?}", self.gate).to_lowercase(), cure));
        }
        Ok(())
    }

    fn check_rank(&self, swin: &SwinConfig) -> Result<()> {
        if self.linears.is_empty() {
            return Ok(());
        }
        if self.rank.len() != 1 && self.rank.len() != swin.stages() {
            let expected = format!("one value, or one for each of {} stages", swin.stages());
            return Err(Error::config("rank", expected, self.rank.len(), "one value serves all stages"));
        }
        const MOST: usize = 1 << 14;
        if let Some(rank) = self.rank.iter().find(|rank| **rank > MOST) {
            return Err(Error::config("rank", format!("at most {MOST}"), rank, "the paper uses 16 to 64"));
        }
        if self.rank.contains(&0) {
            let cure = "use `Tuning::DecodersOnly` to train heads alone";
            return Err(Error::config("rank", "at least 1", 0, cure));
        }
        Ok(())
    }

    fn check_filter(&self) -> Result<()> {
        match self.filter {
            TaskFilterKind::Dynamic { kernel } | TaskFilterKind::Static { kernel }
                if !(3..64).contains(&kernel) || kernel % 2 == 0 =>
            {
                let cure = "an odd side has a centre; the paper uses 3, and `TaskFilterKind::None` uses no filter";
                Err(Error::config("filter.kernel", "an odd number from 3 to 63", kernel, cure))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_field_is_named_with_a_cure() {
        let bad = |start: TadConfig, field: &str, change: fn(&mut TadConfig)| {
            let mut config = start;
            change(&mut config);
            let message = config.check(&SwinConfig::tiny()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}`")), "{message}");
        };
        let paper = TadConfig::default;
        bad(paper(), "rank", |c| c.rank = vec![0]);
        bad(paper(), "rank", |c| c.rank = vec![8, 8]);
        bad(paper(), "rank", |c| c.rank.clear());
        bad(paper(), "filter.kernel", |c| c.filter = TaskFilterKind::Dynamic { kernel: 4 });
        bad(paper(), "filter.kernel", |c| c.filter = TaskFilterKind::Static { kernel: 1 });
        for scale in [0.0, f64::INFINITY, f64::NAN, 1e308, -1e5, 1e-320] {
            let message = TadConfig { scale, ..paper() }.check(&SwinConfig::tiny()).unwrap_err().to_string();
            assert!(message.starts_with("`scale`: expected a number from 0.0001 to 10000.0"), "{message}");
        }
        bad(paper(), "dropout", |c| c.dropout = 1.0);
        bad(paper(), "prompts_per_task", |c| c.task_paths = TaskPaths::Shared);
        bad(paper(), "gate", |c| c.prompts_per_task = 0);
        TadConfig::none().check(&SwinConfig::tiny()).unwrap();
        TadConfig::low_rank_only(4).check(&SwinConfig::tiny()).unwrap();
    }

    #[test]
    fn a_configuration_survives_json_and_unknown_fields_are_refused() {
        let config = TadConfig { rank: vec![4, 8, 16, 32], ..TadConfig::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TadConfig>(&json).unwrap(), config);
        assert!(serde_json::from_str::<TadConfig>(r#"{"rnak": [4]}"#).is_err());
    }
}
