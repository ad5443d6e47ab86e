//! Whether tasks have tokens of their own, and what makes them differ.

use crate::named::alone;
use crate::ops::TpcReading;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Prompts of all tasks together, which stand in every window; the paper uses 4.
pub(crate) const MOST_PROMPTS: usize = 512;

/// Whether the last block of each stage makes tokens for each task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskPaths {
    /// It does not: every task's decoder reads the shared tokens.
    #[serde(deserialize_with = "alone")]
    Shared,
    /// It does: the task-adapting block.
    PerTask(PerTask),
}

/// What a task-adapting block makes a task's tokens of. The default is the paper's.
///
/// ```
/// use tadformer::tad::{Gate, PerTask, Prompts, TaskFilterKind};
/// let filters_alone = PerTask::default().prompts(Prompts::None);
/// let prompts_alone = PerTask::default().filter(TaskFilterKind::None);
/// let ungated = PerTask::default().prompts(Prompts::Learned { per_task: 4, gate: Gate::None });
/// assert_eq!(filters_alone.filter, ungated.filter);
/// # assert_ne!(filters_alone, prompts_alone);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PerTask {
    /// The task filter.
    pub filter: TaskFilterKind,
    /// What conditions the tasks' tokens.
    pub prompts: Prompts,
}

/// The task filter, between A and B on a task's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum TaskFilterKind {
    /// The paper's: a depth-wise filter made from each input's own context, shared by the tasks.
    Dynamic {
        /// Side of the filter: odd, 3 to 63.
        kernel: usize,
    },
    /// The released code's: one learned depth-wise filter for each task.
    Static {
        /// Side of the filter: odd, 3 to 63.
        kernel: usize,
    },
    /// Nothing.
    #[serde(deserialize_with = "alone")]
    None,
}

/// Prompts for each task, which travel with the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Prompts {
    /// None, and so no TPC feature.
    #[serde(deserialize_with = "alone")]
    None,
    /// The paper's: one learned table, which enters the first stage.
    Learned {
        /// Prompts l of each task, at least 1; those of all tasks together at most 512.
        per_task: usize,
        /// How a stage mixes a task's TPC feature with its tokens.
        gate: Gate,
    },
}

/// How a stage mixes a task's TPC feature with its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Gate {
    /// `g tpc + (1 - g) x`, g the sigmoid of one learned scalar a stage that starts at 0.
    Learned {
        /// How it reads the TPC feature.
        reading: TpcReading,
    },
    /// `(tpc + x) / 2`.
    Average {
        /// How it reads the TPC feature.
        reading: TpcReading,
    },
    /// `x`.
    #[serde(deserialize_with = "alone")]
    None,
}

impl Default for PerTask {
    fn default() -> Self {
        Self { filter: TaskFilterKind::Dynamic { kernel: 3 }, prompts: Prompts::learned(1) }
    }
}

impl PerTask {
    /// With another task filter.
    pub fn filter(self, filter: TaskFilterKind) -> Self {
        Self { filter, ..self }
    }

    /// With other prompts, or none.
    pub fn prompts(self, prompts: Prompts) -> Self {
        Self { prompts, ..self }
    }
}

impl From<PerTask> for TaskPaths {
    fn from(paths: PerTask) -> Self {
        Self::PerTask(paths)
    }
}

impl Prompts {
    /// So many prompts for each task, with the paper's gate.
    pub fn learned(per_task: usize) -> Self {
        Self::Learned { per_task, gate: Gate::Learned { reading: TpcReading::Positions } }
    }

    /// Prompts l of each task; 0 where there are none.
    pub fn per_task(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Learned { per_task, .. } => *per_task,
        }
    }

    /// How a stage mixes the TPC feature in.
    pub fn gate(&self) -> Gate {
        match self {
            Self::None => Gate::None,
            Self::Learned { gate, .. } => *gate,
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Learned { per_task, .. } if !(1..=MOST_PROMPTS).contains(per_task) => {
                let cure = "the paper uses 1, and `Prompts::None` has none";
                Err(Error::config("prompts.per_task", format!("1 to {MOST_PROMPTS}"), per_task, cure))
            }
            _ => Ok(()),
        }
    }
}

impl TaskFilterKind {
    fn check(&self) -> Result<()> {
        match self {
            Self::Dynamic { kernel } | Self::Static { kernel } if !(3..64).contains(kernel) || kernel % 2 == 0 => {
                let cure = "an odd side has a centre; the paper uses 3, and `TaskFilterKind::None` uses no filter";
                Err(Error::config("filter.kernel", "an odd number from 3 to 63", kernel, cure))
            }
            _ => Ok(()),
        }
    }
}

impl TaskPaths {
    /// The prompts, where there are task paths for them to condition.
    pub(super) fn prompts(&self) -> Prompts {
        match self {
            Self::Shared => Prompts::None,
            Self::PerTask(paths) => paths.prompts,
        }
    }

    /// Checks every field; `adapted` tells whether a task's path leads through an adapted linear.
    pub(super) fn check(&self, adapted: bool) -> Result<()> {
        let Self::PerTask(paths) = self else { return Ok(()) };
        paths.filter.check()?;
        paths.prompts.check()?;
        if adapted {
            return Ok(());
        }
        if paths.filter != TaskFilterKind::None {
            let cure = "a filter stands between A and B: adapt one of the three, or use `TaskFilterKind::None`";
            return Err(Error::config("filter", "none where neither proj, fc1 nor fc2 is adapted", "one", cure));
        }
        if paths.prompts == Prompts::None {
            let cure = "without prompts or an adapted proj, fc1 or fc2 all tasks have the same tokens";
            return Err(Error::config("task_paths", "shared", "per_task", cure));
        }
        Ok(())
    }
}
