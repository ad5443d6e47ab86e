//! A model's metrics on a set of batches, and image by image.

#[cfg(all(feature = "data", feature = "report"))]
mod examples;
#[cfg(feature = "data")]
mod images;

#[cfg(feature = "data")]
pub use images::{ComparedAt, EdgeScoring, ImageEvaluation, ImageOptions, ImageScores, evaluate_images};

use crate::layers::Mode;
use crate::metrics::{ConstantMeter, ConstantPrediction, Meter, Scores};
use crate::model::TADFormer;
use crate::ops;
use crate::{Batch, Error, Result, Task, TaskSet};
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

    /// Each task's primary figure, where it has one.
    pub fn primary(&self) -> BTreeMap<String, f64> {
        self.iter().filter_map(|(task, scores)| Some((task.name.clone(), scores.primary.value?))).collect()
    }

    /// The scores of the task of this name.
    pub fn get(&self, name: &str) -> Option<&Scores> {
        self.iter().find(|(task, _)| task.name == name).map(|(_, scores)| scores)
    }
}

/// Runs the model in evaluation mode over every batch, whose images are brought to the model's device and float type.
///
/// # Errors
/// A batch that could not be made, of images that are no floats, or that lacks a task's label.
pub fn evaluate(model: &TADFormer, batches: impl IntoIterator<Item = Result<Batch>>) -> Result<Evaluation> {
    let mut meters: Vec<(Task, Meter)> =
        model.config().tasks.iter().map(|task| (task.clone(), Meter::new(task))).collect();
    for batch in batches {
        let batch = batch?;
        // Labels stay where they are: figures are made on the CPU.
        let images = batch.images_to(model.ledger().dtype(), model.ledger().device())?;
        let outputs = ops::without_graph(|| model.forward(&images, Mode::Eval))?;
        for ((task, meter), (_, output)) in meters.iter_mut().zip(outputs.iter()) {
            meter.update(output, label(&batch.labels, task)?)?;
        }
    }
    Ok(Evaluation { scores: meters.into_iter().map(|(task, meter)| (task, meter.scores())).collect() })
}

/// What predictions that ignore the image score: learnt from `seen`, measured on `batches`. A model has to beat them.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_constant(
    tasks: &TaskSet,
    seen: impl IntoIterator<Item = Result<Batch>>,
    batches: impl IntoIterator<Item = Result<Batch>>,
) -> Result<Evaluation> {
    let mut constants: Vec<(Task, ConstantPrediction)> =
        tasks.iter().map(|task| (task.clone(), ConstantPrediction::new(task))).collect();
    for batch in seen {
        let batch = batch?;
        for (task, constant) in &mut constants {
            constant.observe(label(&batch.labels, task)?)?;
        }
    }
    let meter = |(task, constant): (Task, ConstantPrediction)| Ok((task, constant.meter()?));
    let mut meters: Vec<(Task, ConstantMeter)> = constants.into_iter().map(meter).collect::<Result<_>>()?;
    for batch in batches {
        let batch = batch?;
        for (task, meter) in &mut meters {
            meter.update(label(&batch.labels, task)?)?;
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
