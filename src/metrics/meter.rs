//! A task's figures over batches.

use super::depth::DepthMeter;
use super::edge::EdgeMeter;
use super::labels::{read, read_label};
use super::normals::NormalsMeter;
use super::saliency::SaliencyMeter;
use super::score::{Image, Scores};
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
/// | normals | `mean_degrees` | mean angle between unit normals |
/// | depth | `rmse` | over all valid pixels together, predictions at least 1e-9 (in `log_rmse` labels too) |
/// | edge | `max_f` | best over thresholds 0.01 .. 0.99 of F over all pixels together |
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
