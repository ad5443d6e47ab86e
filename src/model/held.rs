//! What of a model does not train for now, though it could.

use crate::params::Group;
use crate::task::{Task, TaskSet};
use std::collections::BTreeSet;

/// The parts that are kept as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(BTreeSet<Part>);

/// What can be kept by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A task's decoder and its projections.
    Head(String),
    Group(Group),
}

impl Part {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Head(task) => task,
            Self::Group(group) => group.name(),
        }
    }
}

impl Held {
    pub(super) fn with(mut self, part: Part) -> Self {
        self.0.insert(part);
        self
    }

    pub(super) fn without(mut self, part: &Part) -> Self {
        self.0.remove(part);
        self
    }

    /// Without the decoders of tasks that are none of these.
    pub(super) fn of(mut self, tasks: &TaskSet) -> Self {
        self.0.retain(|part| !matches!(part, Part::Head(task) if tasks.get(task).is_none()));
        self
    }

    pub(super) fn groups(&self) -> BTreeSet<Group> {
        let group = |part: &Part| if let Part::Group(group) = part { Some(*group) } else { None };
        self.0.iter().filter_map(group).collect()
    }

    /// Whether a task's decoder is kept as a whole.
    pub(super) fn head(&self, task: &Task) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Head(name) if *name == task.name))
    }
}
