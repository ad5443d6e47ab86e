//! What an evaluation found, for people: a table for the terminal, Markdown, JSON, and one HTML file.

mod chart;
mod html;
mod page;
mod table;

use crate::TaskKind;
use crate::metrics::{Score, delta_m};
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
    /// How classes were taken for each other.
    pub confusion: Option<Confusion>,
    /// Precision and recall by threshold.
    pub curve: Vec<CurvePoint>,
    /// How often errors of each size were made.
    pub errors: Option<Histogram>,
    /// The best and the worst images.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// Pixels by label and prediction.
#[derive(Clone, Debug, Serialize)]
pub struct Confusion {
    /// By index.
    pub classes: Vec<String>,
    /// Row by row: the label's class, its predictions in columns.
    pub pixels: Vec<Vec<u64>>,
}

/// A threshold's precision and recall, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// What a prediction has to reach.
    pub threshold: f64,
    /// The share of what was predicted that is right.
    pub precision: f64,
    /// The share of what is there that was predicted.
    pub recall: f64,
}

/// Counts over bins of one width that begin at 0.
#[derive(Clone, Debug, Serialize)]
pub struct Histogram {
    /// What is measured, with its unit.
    pub label: String,
    /// Of a bin.
    pub width: f64,
    /// The last bin holds all that is larger as well.
    pub counts: Vec<u64>,
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

    /// The names of all tasks that any of the models has, in the order in which they first come.
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

    /// The gain over models trained for each task alone, on average; none if a task lacks a figure or reference.
    pub fn delta_m(&self) -> Option<f64> {
        let gains = self.tasks.iter().map(|task| {
            let primary = task.scores.first()?;
            Some((primary.value?, task.reference?, primary.higher_is_better))
        });
        delta_m(gains.collect::<Option<Vec<_>>>()?)
    }

    fn task(&self, name: &str) -> Option<&EvaluatedTask> {
        self.tasks.iter().find(|task| task.name == name)
    }
}

impl EvaluatedTask {
    /// A task with its figures, the primary one first.
    pub fn new(name: impl Into<String>, kind: TaskKind, scores: Vec<Score>) -> Self {
        let (confusion, curve, errors, examples) = (None, Vec::new(), None, Vec::new());
        Self { name: name.into(), kind, scores, reference: None, confusion, curve, errors, examples }
    }

    /// With the primary figure of a model trained for this task alone.
    pub fn reference(self, figure: f64) -> Self {
        Self { reference: Some(figure), ..self }
    }

    fn score(&self, name: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.name == name)
    }
}

impl Confusion {
    /// The intersection over the union of each class; none where neither labels nor predictions have it.
    pub fn iou(&self) -> Vec<Option<f64>> {
        let predicted = |class: usize| self.pixels.iter().map(|row| row[class]).sum::<u64>();
        let of = |(class, row): (usize, &Vec<u64>)| {
            let union = row.iter().sum::<u64>() + predicted(class) - row[class];
            (union > 0).then(|| row[class] as f64 / union as f64)
        };
        self.pixels.iter().enumerate().map(of).collect()
    }
}

#[cfg(test)]
mod tests;
