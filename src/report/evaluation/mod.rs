//! What an evaluation found, for people: a table for the terminal, Markdown, JSON, and one HTML file.

mod chart;
mod html;
mod page;
mod table;

use crate::metrics::{Confusion, Histogram, Meter, PrecisionRecall, Score, Scores, delta_m};
use crate::sample::Classes;
use crate::{Task, TaskKind};
use serde::Serialize;

/// Several models measured on one data set, side by side.
///
/// It prints as a table; [`EvaluationReport::markdown`], [`EvaluationReport::json`] and [`EvaluationReport::html`] give the other forms.
/// The HTML is one file that loads nothing: tables, charts and pictures are in it.
///
/// ```
/// use tadformer::TaskKind;
/// use tadformer::metrics::Score;
/// use tadformer::report::{EvaluatedModel, EvaluatedTask, EvaluationReport};
/// let depth = EvaluatedTask::new("depth", TaskKind::Depth, vec![Score::lower("rmse", Some(0.31))]).reference(0.6);
/// let model = EvaluatedModel::new("mine", vec![depth]);
/// let report = EvaluationReport::new("Rooms", 100, "448 x 448").model(model);
/// assert_eq!(report.models[0].delta_m().map(|gain| (1000.0 * gain).round()), Some(483.0));
/// assert!(report.to_string().contains("0.3100"));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// What was measured on: the data set and its split.
    pub data: String,
    /// How many images.
    pub images: usize,
    /// The size at which outputs and labels were compared.
    pub size: String,
    /// In the order in which they are shown.
    pub models: Vec<EvaluatedModel>,
}

/// One model's part of a report.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluatedModel {
    /// What it is called.
    pub name: String,
    /// Parameters that were trained.
    pub trained: Option<usize>,
    /// Bytes of its adapter's file.
    pub adapter_bytes: Option<u64>,
    /// Seconds that an image took, on average.
    pub seconds_per_image: Option<f64>,
    /// In the model's order.
    pub tasks: Vec<EvaluatedTask>,
}

/// One task's part of a model's.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluatedTask {
    /// The task's name.
    pub name: String,
    /// What it predicts.
    pub kind: TaskKind,
    /// Its figures, the primary one first.
    pub scores: Vec<Score>,
    /// The primary figure of a model trained for this task alone.
    pub reference: Option<f64>,
    /// What its classes are called.
    pub classes: Vec<String>,
    /// How classes were taken for each other.
    pub confusion: Option<Confusion>,
    /// Precision and recall by threshold.
    pub curve: Option<Vec<PrecisionRecall>>,
    /// How often errors of each size were made: degrees of normals, shares of depths.
    pub errors: Option<Histogram>,
    /// The best and the worst images.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// One image's panel.
#[derive(Clone, Debug)]
pub struct Example {
    /// What the image is called, and how well it went.
    pub caption: String,
    /// Whether it is among the best or the worst.
    pub rank: Rank,
    /// A PNG file's bytes: image, label, prediction, error.
    pub png: Vec<u8>,
}

/// Where an example stands among all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Among the best.
    Best,
    /// Among the worst.
    Worst,
}

impl EvaluationReport {
    /// A report without models, of so many images compared at a size.
    pub fn new(data: impl Into<String>, images: usize, size: impl Into<String>) -> Self {
        Self { data: data.into(), images, size: size.into(), models: Vec::new() }
    }

    /// With this model at the end.
    pub fn model(mut self, model: EvaluatedModel) -> Self {
        self.models.push(model);
        self
    }

    /// The report as JSON, pictures left out.
    pub fn json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for (model, shown) in self.models.iter().zip(value["models"].as_array_mut().into_iter().flatten()) {
            shown["delta_m"] = model.delta_m().into();
        }
        value
    }

    /// The tasks that any of the models has, in the order in which they first come.
    fn tasks(&self) -> Vec<&EvaluatedTask> {
        let mut tasks: Vec<&EvaluatedTask> = Vec::new();
        for task in self.models.iter().flat_map(|model| &model.tasks) {
            if tasks.iter().all(|known| known.name != task.name) {
                tasks.push(task);
            }
        }
        tasks
    }
}

impl EvaluatedModel {
    /// A model of which nothing is known but its figures.
    pub fn new(name: impl Into<String>, tasks: Vec<EvaluatedTask>) -> Self {
        Self { name: name.into(), trained: None, adapter_bytes: None, seconds_per_image: None, tasks }
    }

    /// The gain over models trained for one task each, on average over the tasks that have a reference; none without one, or where such
    /// a task has no figure.
    pub fn delta_m(&self) -> Option<f64> {
        let gain = |task: &EvaluatedTask| {
            let (reference, primary) = (task.reference?, task.scores.first()?);
            Some(primary.value.map(|value| (value, reference, primary.higher_is_better)))
        };
        delta_m(self.tasks.iter().filter_map(gain).collect::<Option<Vec<_>>>()?)
    }

    fn task(&self, name: &str) -> Option<&EvaluatedTask> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

impl EvaluatedTask {
    /// A task with its figures, the primary one first.
    pub fn new(name: impl Into<String>, kind: TaskKind, scores: Vec<Score>) -> Self {
        let (classes, examples) = (Vec::new(), Vec::new());
        let (reference, confusion, curve, errors) = (None, None, None, None);
        Self { name: name.into(), kind, scores, reference, classes, confusion, curve, errors, examples }
    }

    /// All that a task's meter has counted; classes are called as here.
    pub fn of_meter(task: &Task, meter: &Meter, classes: &Classes) -> Self {
        let Scores { primary, others, .. } = meter.scores();
        let names = (0..task.outputs()).map(|class| classes.name(class).into_owned());
        Self {
            classes: if task.kind().is_classes() { names.collect() } else { Vec::new() },
            confusion: meter.confusion().cloned(),
            curve: meter.curve(),
            errors: meter.errors().cloned(),
            ..Self::new(task.name(), task.kind(), std::iter::once(primary).chain(others).collect())
        }
    }

    /// With the primary figure of a model trained for this task alone.
    pub fn reference(self, figure: f64) -> Self {
        Self { reference: Some(figure), ..self }
    }

    fn score(&self, name: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.name == name)
    }
}

#[cfg(test)]
mod tests;
