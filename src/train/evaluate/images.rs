//! A model's figures image by image, at the model's input size or at each image's own.

use crate::data::{Ahead, Make, Skipped, Transform, Transforms, Unreadable, Wanted};
use crate::metrics::{BoundaryMeter, BoundaryRecipe, BoundaryRule, BoundaryTruth, Meter};
use crate::model::{InferenceModel, Outputs};
use crate::ops;
use crate::sample::{Dataset, IGNORE};
use crate::{Batch, Error, Result, Sample, Task, TaskKind, TaskSet};
use candle_core::{Device, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// At which size outputs and labels are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComparedAt {
    /// The model's input size, labels resized to it: as papers' tables have it.
    #[default]
    InputSize,
    /// Each image's own size, outputs resized to it bilinearly.
    OwnSize,
}

/// How predicted edges are scored beside the pixels' F: see [`BoundaryMeter`].
#[derive(Clone, Copy, Debug)]
pub struct EdgeScoring {
    /// Which pixels are edges at a threshold.
    pub recipe: BoundaryRecipe,
    /// How far matched pixels may lie apart, as a share of the diagonal.
    pub distance: f64,
    /// How true edges come from the edge label, where the data set has no segments: see [`Dataset::segments`].
    pub rule: BoundaryRule,
}

/// How images are evaluated.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// What brings an image and its labels to the model's input: a recipe's validation steps.
    pub input: Transforms,
    /// At which size outputs and labels are compared.
    pub at: ComparedAt,
    /// How edges are scored beside the pixels' F, if at all.
    pub edges: Option<EdgeScoring>,
    /// Threads that read images.
    pub workers: usize,
    /// What becomes of an image that cannot be read.
    pub unreadable: Unreadable,
}

impl ImageOptions {
    /// Compared at the input size, with edges scored by pixels alone; read by one thread; an unreadable image is an error.
    pub fn new(input: Transforms) -> Self {
        let (at, unreadable) = (ComparedAt::default(), Unreadable::default());
        Self { input, at, edges: None, workers: 1, unreadable }
    }
}

/// A model's figures on a data set, over all images and for each.
#[derive(Clone, Debug)]
pub struct ImageEvaluation {
    pub(super) tasks: Vec<Measured>,
    pub(super) images: Vec<ImageScores>,
    skipped: Skipped,
    /// Of the model alone.
    seconds: f64,
}

/// What has been counted of one task.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub task: Task,
    pub meter: Meter,
    pub boundary: Option<BoundaryMeter>,
}

/// One image's primary figures.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageScores {
    /// Its index in the data set.
    pub index: usize,
    /// What the data set calls it.
    pub name: String,
    /// By task, in the model's order; none where nothing is known.
    pub scores: Vec<Option<f64>>,
}

/// An image as the model takes it, and what its outputs are compared with.
#[derive(Debug)]
struct Read {
    index: usize,
    input: Sample,
    compared: Sample,
    segments: Option<Tensor>,
}

/// Measures a model on every image of a data set whose samples have their own sizes, one after the other.
///
/// An image's missing labels leave the figures, as if the set had held the others alone. `each` sees every image as it has been
/// measured, and ends the evaluation early by returning false.
///
/// # Errors
/// A data set that has other classes of a task than the model, or none of its tasks; an image or label that cannot be read, unless those are left out; a label of another size than its image or of no class; outputs
/// that are no numbers.
pub fn evaluate_images(
    model: &InferenceModel,
    dataset: Arc<dyn Dataset>,
    options: &ImageOptions,
    mut each: impl FnMut(&ImageScores) -> bool,
) -> Result<ImageEvaluation> {
    check_tasks(&model.config().tasks, dataset.tasks())?;
    let mut evaluation = ImageEvaluation::new(model, dataset.as_ref(), options.edges.as_ref())?;
    let job = || ReadImage { dataset: dataset.clone(), options: options.clone() };
    for read in Ahead::start(0..dataset.len(), options.workers, job)? {
        match (read, options.unreadable) {
            (Ok(read), _) => evaluation.add(model, &read, dataset.as_ref(), options)?,
            (Err(error), Unreadable::Refuse) => return Err(error),
            (Err(error), Unreadable::Skip) => {
                evaluation.skipped.add(error.to_string());
                continue;
            }
        }
        if evaluation.images.last().is_some_and(|image| !each(image)) {
            break;
        }
    }
    Ok(evaluation)
}

/// Refuses a data set on which the model cannot be measured.
fn check_tasks(model: &TaskSet, data: &TaskSet) -> Result<()> {
    let shared: Vec<(&Task, &Task)> = model.iter().filter_map(|task| Some((task, data.get(task.name())?))).collect();
    if shared.is_empty() {
        let cure = "tasks of the model and of the data set are matched by their names";
        return Err(Error::config("tasks of the data set", format!("one of {model}"), data, cure));
    }
    match shared.into_iter().find(|(task, known)| task != known) {
        None => Ok(()),
        Some((task, known)) => {
            let cure = "measure an adapter that was trained for this set's classes";
            Err(Error::config("task of the data set", task.to_string(), known, cure))
        }
    }
}

impl ImageEvaluation {
    fn new(model: &InferenceModel, dataset: &dyn Dataset, edges: Option<&EdgeScoring>) -> Result<Self> {
        let measured = |task: &Task| {
            let classes = dataset.classes(task.name()).cloned().unwrap_or_default();
            let names: Vec<_> = (0..task.outputs()).map(|class| classes.name(class).into_owned()).collect();
            let meter = Meter::new(task);
            let meter = if task.kind().is_classes() { meter.with_class_names(names)? } else { meter };
            let scored = edges.filter(|_| task.kind() == TaskKind::Edge);
            let boundary = scored.map(|edges| BoundaryMeter::new(edges.recipe, edges.distance)).transpose()?;
            Ok(Measured { task: task.clone(), meter, boundary })
        };
        let tasks = model.config().tasks.iter().map(measured).collect::<Result<_>>()?;
        Ok(Self { tasks, images: Vec::new(), skipped: Skipped::default(), seconds: 0.0 })
    }

    /// Each task with what its meter has counted.
    pub fn meters(&self) -> impl Iterator<Item = (&Task, &Meter)> {
        self.tasks.iter().map(|measured| (&measured.task, &measured.meter))
    }

    /// The edges' benchmark figures of the task of this name, where they were asked for.
    pub fn boundary(&self, task: &str) -> Option<&BoundaryMeter> {
        self.tasks.iter().find(|measured| measured.task.name() == task)?.boundary.as_ref()
    }

    /// Every image that was measured, in the data set's order.
    pub fn images(&self) -> &[ImageScores] {
        &self.images
    }

    /// The images that were left out because they could not be read.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Seconds that the model took for an image, reading and measuring left out; none without an image.
    pub fn seconds_per_image(&self) -> Option<f64> {
        (!self.images.is_empty()).then(|| self.seconds / self.images.len() as f64)
    }

    fn add(
        &mut self,
        model: &InferenceModel,
        read: &Read,
        dataset: &dyn Dataset,
        options: &ImageOptions,
    ) -> Result<()> {
        let name = dataset.name(read.index);
        let measured = self.measure(model, read, options);
        let scores = measured.map_err(|error| Error::dataset(read.index, error))?;
        self.images.push(ImageScores { index: read.index, name, scores });
        Ok(())
    }

    /// The primary figures of an image, which is counted among all.
    fn measure(&mut self, model: &InferenceModel, read: &Read, options: &ImageOptions) -> Result<Vec<Option<f64>>> {
        let start = Instant::now();
        let outputs = outputs_of(model, &read.input)?;
        self.seconds += start.elapsed().as_secs_f64();
        let size = size_of(&read.compared)?;
        let mut scores = Vec::with_capacity(self.tasks.len());
        for (measured, (_, outputs)) in self.tasks.iter_mut().zip(outputs.iter()) {
            let Some(label) = read.compared.labels.get(measured.task.name()) else {
                scores.push(None);
                continue;
            };
            let outputs = ops::bilinear(&outputs.to_device(&Device::Cpu)?, size)?;
            scores.push(measured.add(&outputs, label)?);
            if let Some(edges) = &options.edges {
                measured.add_edges(&outputs, label, read.segments.as_ref(), edges)?;
            }
        }
        Ok(scores)
    }
}

impl Measured {
    /// The primary figure of one image, which is counted among all.
    fn add(&mut self, outputs: &Tensor, label: &Tensor) -> Result<Option<f64>> {
        let mut alone = Meter::new(&self.task);
        alone.update(outputs, &label.unsqueeze(0)?)?;
        self.meter.merge(&alone)?;
        Ok(alone.scores().primary.value)
    }

    fn add_edges(
        &mut self,
        outputs: &Tensor,
        label: &Tensor,
        segments: Option<&Tensor>,
        edges: &EdgeScoring,
    ) -> Result<()> {
        let Some(meter) = &mut self.boundary else { return Ok(()) };
        let truth = match segments {
            Some(segments) => BoundaryTruth::of_map(BoundaryRule::Segments, segments, None)?,
            None => BoundaryTruth::of_map(edges.rule, label, Some(IGNORE as u32))?,
        };
        meter.update_outputs(outputs, &truth)
    }
}

/// A model's outputs of one sample.
pub(super) fn outputs_of(model: &InferenceModel, input: &Sample) -> Result<Outputs> {
    let batch = Batch::stack(std::slice::from_ref(input), model.dtype(), model.device())?;
    Ok(model.forward(&batch.images)?)
}

pub(super) fn size_of(sample: &Sample) -> Result<(usize, usize)> {
    let (_, h, w) = sample.image.dims3()?;
    Ok((h, w))
}

/// What a thread does.
struct ReadImage {
    dataset: Arc<dyn Dataset>,
    options: ImageOptions,
}

impl Make<Read> for ReadImage {
    fn make(&mut self, index: usize, wanted: &Wanted) -> Option<Result<Read>> {
        wanted.is_true().then(|| self.read(index).map_err(Error::of_sample(index)))
    }

    fn name(&mut self, index: usize) -> String {
        format!("image {}", self.dataset.name(index))
    }
}

impl ReadImage {
    fn read(&self, index: usize) -> Result<Read> {
        let own = self.dataset.get(index)?.checked()?;
        let (input, compared) = prepared(own, self.dataset.as_ref(), &self.options)?;
        let asked = self.options.edges.is_some() && self.options.at == ComparedAt::OwnSize;
        let segments = if asked { self.dataset.segments(index, size_of(&compared)?)? } else { None };
        Ok(Read { index, input, compared, segments })
    }
}

/// A sample as the model takes it, and as its outputs are compared with it.
pub(super) fn prepared(own: Sample, dataset: &dyn Dataset, options: &ImageOptions) -> Result<(Sample, Sample)> {
    let tasks = dataset.tasks();
    let input = options.input.apply(own.clone(), tasks, 0)?;
    let compared = match options.at {
        ComparedAt::InputSize => input.clone(),
        ComparedAt::OwnSize => Transforms::new(vec![Transform::IgnoreAbsentParts])?.apply(own, tasks, 0)?,
    };
    Ok((input, compared))
}
