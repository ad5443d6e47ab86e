//! The loss of each task, and the weighted total.

use super::cross_entropy::{check_label, unread};
use super::{PositiveWeight, balanced_bce, cross_entropy, depth_l1, normals_l1};
use crate::task::{Task, TaskKind, TaskSet};
use crate::{Error, Result, readback};
use candle_core::{Result as CandleResult, Tensor};
use std::collections::BTreeMap;

/// The recipe's weight of a kind of task in the total.
pub fn default_weight(kind: TaskKind) -> f64 {
    match kind {
        TaskKind::Semseg | TaskKind::Depth => 1.0,
        TaskKind::HumanParts => 2.0,
        TaskKind::Sal => 5.0,
        TaskKind::Normals => 10.0,
        TaskKind::Edge => 50.0,
    }
}

/// The loss of one kind of task.
///
/// # Shapes
/// `outputs` `[B, n, H, W]`, `label` `[B, c, H, W]`; a scalar comes back.
///
/// # Errors
/// Outputs and label of different sizes; a label that is no class.
pub fn task_loss(kind: TaskKind, outputs: &Tensor, label: &Tensor) -> CandleResult<Tensor> {
    match kind {
        TaskKind::Semseg | TaskKind::HumanParts => cross_entropy(outputs, label),
        TaskKind::Sal => balanced_bce(outputs, label, PositiveWeight::ShareOfNegatives),
        TaskKind::Edge => balanced_bce(outputs, label, PositiveWeight::Fixed(0.95)),
        TaskKind::Normals => normals_l1(outputs, label),
        TaskKind::Depth => depth_l1(outputs, label),
    }
}

/// The weighted sum of the tasks' losses.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use tadformer::loss::MultiTaskLoss;
/// let tasks: tadformer::TaskSet = "depth=1,sal=1".parse()?;
/// let loss = MultiTaskLoss::new(&tasks).with_weight("sal", 2.0)?;
/// let map = Tensor::zeros((1, 1, 4, 4), DType::F32, &Device::Cpu)?;
/// let report = loss.forward(tasks.iter().map(|task| (task, &map, &map)))?;
/// assert_eq!(report.values()?[0], 0.0);
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiTaskLoss {
    weights: BTreeMap<String, f64>,
}

/// The losses of one batch.
///
/// On a device other than the CPU a label that is no class makes the loss NaN, since looking would wait for the device:
/// [`LossReport::values`] names it.
#[derive(Debug)]
#[non_exhaustive]
pub struct LossReport {
    /// The weighted sum, a scalar to call backward on.
    pub total: Tensor,
    /// Each task's loss, unweighted.
    pub tasks: Vec<(String, Tensor)>,
    /// Of the tasks with classes, in the tasks' places.
    labels: Vec<Option<ClassLabel>>,
}

/// A label of classes, to be looked at once its loss turns out to be no number.
#[derive(Clone, Debug)]
struct ClassLabel {
    label: Tensor,
    classes: usize,
}

/// A report's numbers without their graph, to be read together with others.
#[cfg(feature = "train")]
pub(crate) struct UnreadLosses {
    tasks: Vec<String>,
    labels: Vec<Option<ClassLabel>>,
    numbers: Vec<Tensor>,
}

impl MultiTaskLoss {
    /// The recipe's weights.
    pub fn new(tasks: &TaskSet) -> Self {
        Self { weights: tasks.iter().map(|task| (task.name.clone(), default_weight(task.kind))).collect() }
    }

    /// Gives one task another weight.
    ///
    /// # Errors
    /// A task that the model does not have; a weight that is negative or no number.
    pub fn with_weight(mut self, task: &str, weight: f64) -> Result<Self> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::config(format!("weight of {task}"), "0 or more", weight, "0 leaves a task untrained"));
        }
        match self.weights.get_mut(task) {
            Some(slot) => *slot = weight,
            None => {
                let known = self.weights.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(Error::config("weight", format!("one of {known}"), task, "name a task of the model"));
            }
        }
        Ok(self)
    }

    /// Losses of each task's outputs and label, and their weighted sum.
    ///
    /// # Errors
    /// No task at all; outputs that are not the task's, or not of the label's size; a label that is no class.
    pub fn forward<'a>(
        &self,
        tasks: impl IntoIterator<Item = (&'a Task, &'a Tensor, &'a Tensor)>,
    ) -> Result<LossReport> {
        let (mut losses, mut labels) = (Vec::new(), Vec::new());
        let mut total: Option<Tensor> = None;
        for (task, outputs, label) in tasks {
            check_shapes(task, outputs, label)?;
            let (loss, class_label) = if task.kind.is_classes() {
                (unread(outputs, label), Some(ClassLabel { label: label.clone(), classes: task.outputs }))
            } else {
                (task_loss(task.kind, outputs, label), None)
            };
            let loss = loss.map_err(|e| e.context(format!("loss of {}", task.name)))?;
            let weight = self.weights.get(&task.name).copied().unwrap_or_else(|| default_weight(task.kind));
            let weighted = (&loss * weight)?;
            total = Some(total.map_or(Ok(weighted.clone()), |total| total + &weighted)?);
            losses.push((task.name.clone(), loss));
            labels.push(class_label);
        }
        let total = total.ok_or_else(|| Error::config("tasks", "at least one", "none", "give each task's outputs"))?;
        Ok(LossReport { total, tasks: losses, labels })
    }
}

impl LossReport {
    /// Each task's loss as a number; the device is read once, for all of them.
    ///
    /// # Errors
    /// A label that is no class.
    pub fn values(&self) -> Result<Vec<f64>> {
        let values = readback::numbers(self.tasks.iter().map(|(_, loss)| loss))?;
        check_labels(self.tasks.iter().map(|(name, _)| name), &self.labels, &values)?;
        Ok(values)
    }

    /// The numbers alone, once backward has been called: the graph goes with the report.
    #[cfg(feature = "train")]
    pub(crate) fn into_unread(self) -> UnreadLosses {
        let (tasks, losses): (Vec<String>, Vec<Tensor>) = self.tasks.into_iter().unzip();
        let numbers = losses.iter().chain([&self.total]).map(Tensor::detach).collect();
        UnreadLosses { tasks, labels: self.labels, numbers }
    }
}

#[cfg(feature = "train")]
impl UnreadLosses {
    /// Each task's loss, and the weighted sum.
    pub(crate) fn numbers(&self) -> &[Tensor] {
        &self.numbers
    }

    /// Each task's loss and the weighted sum, by what was read of [`UnreadLosses::numbers`]; refuses a loss that is no number.
    pub(crate) fn check<'a>(&self, values: &'a [f64], step: usize) -> Result<(&'a [f64], f64)> {
        let (losses, total) = values.split_at(self.tasks.len());
        check_labels(&self.tasks, &self.labels, losses)?;
        match self.tasks.iter().zip(losses).find(|(_, loss)| !loss.is_finite()) {
            None => Ok((losses, total.iter().sum())),
            Some((task, _)) => {
                let what = format!("the loss of task `{task}`");
                let cure = "lower the learning rate, and look for labels or images that are no numbers";
                Err(Error::NonFinite { what, step, cure: cure.into() })
            }
        }
    }
}

/// Looks at the labels of those losses that are no numbers.
fn check_labels<'a>(
    tasks: impl IntoIterator<Item = &'a String>,
    labels: &[Option<ClassLabel>],
    losses: &[f64],
) -> Result<()> {
    for ((task, label), loss) in tasks.into_iter().zip(labels).zip(losses) {
        if let (Some(ClassLabel { label, classes }), false) = (label, loss.is_finite()) {
            check_label(label, *classes).map_err(|e| e.context(format!("loss of {task}")))?;
        }
    }
    Ok(())
}

fn check_shapes(task: &Task, outputs: &Tensor, label: &Tensor) -> Result<()> {
    let (b, _, h, w) = outputs.dims4()?;
    let channels = task.kind.label_channels();
    for (what, tensor, channels) in [("outputs", outputs, task.outputs), ("label", label, channels)] {
        if tensor.dims() != [b, channels, h, w] {
            let (what, expected) = (format!("{what} of {}", task.name), format!("{:?}", [b, channels, h, w]));
            return Err(Error::Shape { what, expected, got: tensor.dims().into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use candle_core::{DType, Device};

    #[test]
    fn the_total_is_the_weighted_sum() -> Result<()> {
        let tasks: TaskSet = "depth=1,rooms:semseg=2".parse()?;
        let map = |value: f32, c| Tensor::full(value, (1, c, 2, 2), &Device::Cpu);
        let (depth, label, scores, class) = (map(3.0, 1)?, map(1.0, 1)?, map(0.0, 2)?, map(1.0, 1)?);
        let loss = MultiTaskLoss::new(&tasks).with_weight("depth", 0.5)?;
        let items: Vec<&Task> = tasks.iter().collect();
        let report = loss.forward([(items[0], &depth, &label), (items[1], &scores, &class)])?;
        assert_eq!(report.values()?[0], 2.0);
        let total = report.total.to_scalar::<f32>()?;
        assert!((total - (1.0 + 2f32.ln())).abs() < 1e-6, "{total}");
        Ok(())
    }

    #[test]
    fn bad_weights_and_labels_are_named() -> Result<()> {
        let tasks: TaskSet = "normals=3".parse()?;
        let loss = MultiTaskLoss::new(&tasks);
        for (task, weight, word) in
            [("normals", -1.0, "0 or more"), ("normals", f64::NAN, "0 or more"), ("sal", 1.0, "normals")]
        {
            let message = loss.clone().with_weight(task, weight).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        let map = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu)?;
        let narrow = map.narrow(1, 0, 1)?;
        let message = loss.forward(tasks.iter().map(|task| (task, &map, &narrow))).unwrap_err().to_string();
        assert!(message.contains("label of normals") && message.contains("[1, 3, 2, 2]"), "{message}");
        let message = loss.forward(tasks.iter().map(|task| (task, &narrow, &map))).unwrap_err().to_string();
        assert!(message.contains("outputs of normals"), "{message}");
        let (classes, scores) = ("rooms:semseg=3".parse::<TaskSet>()?, &map);
        let label = narrow.affine(0.0, 3.0)?;
        let values = || loss.forward(classes.iter().map(|task| (task, scores, &label)))?.values();
        for by in Definition::ALL {
            let message = by.run(values).unwrap_err().to_string();
            assert!(message.contains("loss of rooms") && message.contains("got 3"), "{message}");
        }
        assert!(loss.forward([]).unwrap_err().to_string().contains("at least one"));
        Ok(())
    }
}
