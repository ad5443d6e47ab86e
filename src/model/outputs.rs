//! What a model predicts: one tensor a task.

use crate::task::{Task, TaskSet};
use candle_core::Tensor;

/// The outputs of each task, `[B, n, H, W]`, in the tasks' order.
#[derive(Clone, Debug)]
pub struct Outputs {
    maps: Vec<(Task, Tensor)>,
}

impl Outputs {
    pub(super) fn new(tasks: &TaskSet, maps: Vec<Tensor>) -> Self {
        Self { maps: tasks.iter().cloned().zip(maps).collect() }
    }

    /// The output of the task of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(task, _)| task.name == name).map(|(_, map)| map)
    }

    /// Every task with its output.
    pub fn iter(&self) -> impl Iterator<Item = (&Task, &Tensor)> {
        self.maps.iter().map(|(task, map)| (task, map))
    }
}
