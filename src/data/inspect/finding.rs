//! Faults, counted by task and kind.

use crate::sample::{Fault, FaultKind};
use std::collections::BTreeMap;

/// Messages of one kind that are kept.
const MOST_FIRST: usize = 3;

/// Faults of one kind, of one task or of images.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The task whose labels they are; none for images and the set itself.
    pub task: Option<String>,
    /// Of which kind.
    pub kind: FaultKind,
    /// How many there are.
    pub count: usize,
    /// What the first ones say, three at most.
    pub first: Vec<String>,
}

/// Findings by task and kind.
#[derive(Default)]
pub(super) struct Findings(BTreeMap<(Option<String>, FaultKind), (usize, Vec<String>)>);

impl Findings {
    pub fn add(&mut self, fault: Fault) {
        let (count, first) = self.0.entry((fault.task, fault.kind)).or_default();
        *count += 1;
        if first.len() < MOST_FIRST {
            first.push(fault.error.to_string());
        }
    }

    /// Adds what was found after these.
    pub fn append(&mut self, later: Self) {
        for (key, (more, messages)) in later.0 {
            let (count, first) = self.0.entry(key).or_default();
            *count += more;
            first.extend(messages);
            first.truncate(MOST_FIRST);
        }
    }

    pub fn listed(self) -> Vec<Finding> {
        let finding = |((task, kind), (count, first))| Finding { task, kind, count, first };
        self.0.into_iter().map(finding).collect()
    }
}
