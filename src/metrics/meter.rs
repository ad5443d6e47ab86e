//! A task's figures over batches.

use super::confusion::Confusion;
use super::depth::DepthMeter;
use super::edge::EdgeMeter;
use super::histogram::Histogram;
use super::labels::{read, read_label};
use super::normals::NormalsMeter;
use super::saliency::SaliencyMeter;
use super::score::{Image, PrecisionRecall, Scores};
use super::segmentation::SegmentationMeter;
use crate::task::{Task, TaskKind};
use crate::{Error, Result};
use candle_core::Tensor;

/// Takes outputs and labels batch by batch, and gives the figures over all of them.
///
/// | kind | primary | definition |
/// | --- | --- | --- |
/// | semseg, human parts | `miou` | mean over all classes of the intersection over the union; an absent class counts 0 |
/// | sal | `max_iou` | best over thresholds 0.20, 0.25 .. 0.90 of the mean over images |
/// | normals | `mean_degrees` | mean angle between unit normals; papers print it as "rmse" |
/// | depth | `rmse` | over all valid pixels together, predictions at least 1e-9 |
/// | edge | `max_f` | best over thresholds 0.01 .. 0.99 of F over all pixels together; odsF is [`BoundaryMeter`](super::BoundaryMeter)'s |
///
/// | kind | others | definition |
/// | --- | --- | --- |
/// | semseg, human parts | `pixel_accuracy` | share of pixels that are predicted right |
/// | | `mean_accuracy` | mean over the labelled classes of the share of each that is predicted right |
/// | | `iou_0` .. | a class's intersection over union, under its [name](Self::with_class_names) where it has one |
/// | sal | `max_f` | best over the thresholds of F of the mean precision and recall over images |
/// | normals | `rmse_degrees`, `median_degrees` | of the angles; the median to 0.005 degrees |
/// | | `below_11.25`, `below_22.5`, `below_30` | shares of smaller angles |
/// | depth | `log_rmse`, `si_log_rmse` | of d = ln prediction - ln label; the second scale-invariant, root of mean d^2 - (mean d)^2 |
/// | | `abs_rel`, `sq_rel` | mean of error / label, and of error^2 / label |
/// | | `delta_1`, `delta_2`, `delta_3` | shares of pixels whose prediction and label differ by a factor below 1.25, 1.25^2, 1.25^3 |
///
/// Depths that are divided by or taken the logarithm of are at least 1e-9. An ignored pixel counts nowhere, and an image that is
/// ignored everywhere leaves every figure as if it had not been there.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::metrics::Meter;
/// let mut meter = Meter::new(&"depth=1".parse()?);
/// let (outputs, label) = (Tensor::new(&[[[[1f32, 5.]]]], &Device::Cpu)?, Tensor::new(&[[[[4f32, 255.]]]], &Device::Cpu)?);
/// meter.update(&outputs, &label)?;
/// assert_eq!(meter.scores().primary.value, Some(3.0));
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Meter {
    task: Task,
    kind: Kind,
    updates: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Segmentation(SegmentationMeter),
    Saliency(Box<SaliencyMeter>),
    Normals(NormalsMeter),
    Depth(DepthMeter),
    Edge(Box<EdgeMeter>),
}

impl Meter {
    /// An empty meter for a task.
    pub fn new(task: &Task) -> Self {
        let kind = match task.kind {
            TaskKind::Semseg | TaskKind::HumanParts => Kind::Segmentation(SegmentationMeter::new(task.outputs)),
            TaskKind::Sal => Kind::Saliency(Box::default()),
            TaskKind::Normals => Kind::Normals(NormalsMeter::default()),
            TaskKind::Depth => Kind::Depth(DepthMeter::default()),
            TaskKind::Edge => Kind::Edge(Box::default()),
        };
        Self { task: task.clone(), kind, updates: 0 }
    }

    /// The meter with names for its classes, such as those of the data set, in the order of the outputs.
    ///
    /// # Errors
    /// Another number of names than classes; names for a task without classes.
    pub fn with_class_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let (field, got) = (format!("class names of {}", self.task.name), names.len());
        match &mut self.kind {
            Kind::Segmentation(meter) if meter.names.len() == got => meter.names = names,
            Kind::Segmentation(meter) => {
                let expected = format!("{} names", meter.names.len());
                return Err(Error::config(field, expected, got, "give a name for each output of the task"));
            }
            _ => return Err(Error::config(field, "none", got, "its outputs are no classes")),
        }
        Ok(self)
    }

    /// Adds a batch: outputs `[B, n, H, W]` before softmax or sigmoid, label `[B, c, H, W]`.
    ///
    /// # Errors
    /// Outputs or labels of another shape; outputs that are no number; a value that the task's labels cannot have. The meter
    /// then stays as it was.
    pub fn update(&mut self, outputs: &Tensor, label: &Tensor) -> Result<()> {
        let (b, _, h, w) = outputs.dims4()?;
        let (n, c, pixels) = (self.task.outputs, self.task.kind.label_channels(), h * w);
        let outputs = read(format!("outputs of {}", self.task.name), outputs, [b, n, h, w])?;
        let labels = read_label(&self.task, label, [b, h, w])?;
        self.check_outputs(&outputs)?;
        self.updates += 1;
        let images = outputs.chunks_exact((n * pixels).max(1)).zip(labels.chunks_exact((c * pixels).max(1)));
        for (outputs, label) in images {
            self.add(&Image { outputs, label, pixels });
        }
        Ok(())
    }

    /// An infinite score can still be compared; an infinite depth or normal cannot be measured.
    fn check_outputs(&self, outputs: &[f32]) -> Result<()> {
        let measured = matches!(self.task.kind, TaskKind::Normals | TaskKind::Depth);
        if outputs.iter().all(|v| if measured { v.is_finite() } else { !v.is_nan() }) {
            return Ok(());
        }
        let cure = "the model has diverged: take an earlier checkpoint, or train with a smaller rate".to_owned();
        Err(Error::NonFinite { what: format!("an output of {}", self.task.name), step: self.updates + 1, cure })
    }

    fn add(&mut self, image: &Image) {
        match &mut self.kind {
            Kind::Segmentation(meter) => meter.add(image),
            Kind::Saliency(meter) => meter.add(image),
            Kind::Normals(meter) => meter.add(image),
            Kind::Depth(meter) => meter.add(image),
            Kind::Edge(meter) => meter.add(image),
        }
    }

    /// Adds all that another meter of the same task has counted. The figures are those of one meter that saw it all, but for the order
    /// in which sums were rounded.
    ///
    /// # Errors
    /// A meter of another task.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.task != other.task {
            let (expected, cure) = (self.task.to_string(), "keep a meter for each task");
            return Err(Error::config("task of a meter", expected, &other.task, cure));
        }
        self.updates += other.updates;
        match (&mut self.kind, &other.kind) {
            (Kind::Segmentation(meter), Kind::Segmentation(other)) => meter.confusion.merge(&other.confusion),
            (Kind::Saliency(meter), Kind::Saliency(other)) => meter.merge(other),
            (Kind::Normals(meter), Kind::Normals(other)) => meter.merge(other),
            (Kind::Depth(meter), Kind::Depth(other)) => meter.merge(other),
            (Kind::Edge(meter), Kind::Edge(other)) => meter.merge(other),
            _ => {} // a task has one kind
        }
        Ok(())
    }

    /// For tasks of classes: which are taken for which.
    pub fn confusion(&self) -> Option<&Confusion> {
        match &self.kind {
            Kind::Segmentation(meter) => Some(&meter.confusion),
            _ => None,
        }
    }

    /// For normals the angles in degrees; for depth the errors over the labels, up to 1 and beyond.
    pub fn errors(&self) -> Option<&Histogram> {
        match &self.kind {
            Kind::Normals(meter) => Some(&meter.errors),
            Kind::Depth(meter) => Some(&meter.errors),
            _ => None,
        }
    }

    /// For edges and saliency: precision and recall at each threshold, ascending; for saliency the means over images.
    pub fn curve(&self) -> Option<Vec<PrecisionRecall>> {
        match &self.kind {
            Kind::Edge(meter) => Some(meter.curve()),
            Kind::Saliency(meter) => Some(meter.curve()),
            _ => None,
        }
    }

    /// The figures so far.
    pub fn scores(&self) -> Scores {
        match &self.kind {
            Kind::Segmentation(meter) => meter.scores(),
            Kind::Saliency(meter) => meter.scores(),
            Kind::Normals(meter) => meter.scores(),
            Kind::Depth(meter) => meter.scores(),
            Kind::Edge(meter) => meter.scores(),
        }
    }
}
