//! A model's metrics on a set of batches.

use crate::layers::Mode;
use crate::metrics::{Meter, Scores};
use crate::model::TADFormer;
use crate::{Batch, Error, Result, Task};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// Each task's scores, in the tasks' order.
#[derive(Clone, Debug)]
pub struct Evaluation {
    scores: Vec<(Task, Scores)>,
}

impl Evaluation {
    /// Each task with its scores.
    pub fn iter(&self) -> impl Iterator<Item = (&Task, &Scores)> {
        self.scores.iter().map(|(task, scores)| (task, scores))
    }

    /// The scores of the task of this name.
    pub fn get(&self, name: &str) -> Option<&Scores> {
        self.iter().find(|(task, _)| task.name == name).map(|(_, scores)| scores)
    }
}

/// Runs the model in evaluation mode over every batch.
///
/// # Errors
/// A batch that could not be made, or that lacks a task's label.
pub fn evaluate(model: &TADFormer, batches: impl IntoIterator<Item = Result<Batch>>) -> Result<Evaluation> {
    let mut meters: Vec<(Task, Meter)> =
        model.config().tasks.iter().map(|task| (task.clone(), Meter::new(task))).collect();
    for batch in batches {
        let batch = batch?;
        let outputs = model.forward(&batch.images, Mode::Eval)?;
        for ((task, meter), (_, output)) in meters.iter_mut().zip(outputs.iter()) {
            meter.update(output, label(&batch.labels, task)?)?;
        }
    }
    Ok(Evaluation { scores: meters.into_iter().map(|(task, meter)| (task, meter.scores())).collect() })
}

/// A task's label in a batch.
pub(super) fn label<'a>(labels: &'a BTreeMap<String, Tensor>, task: &Task) -> Result<&'a Tensor> {
    labels.get(&task.name).ok_or_else(|| {
        let known = labels.keys().cloned().collect::<Vec<_>>().join(", ");
        let cure = "name the task as the data set does, or fill its label with 255";
        Error::config("label", format!("one for task `{}`", task.name), format!("labels for {known}"), cure)
    })
}
