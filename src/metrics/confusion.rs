//! Which classes are taken for which.

use super::score::ratio;
use serde::Serialize;

/// Counts of pixels by their label's class and the predicted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    classes: usize,
    /// `[label, predicted]`.
    counts: Vec<u64>,
}

impl Confusion {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    pub(super) fn add(&mut self, label: usize, predicted: usize) {
        self.counts[label * self.classes + predicted] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many pixels of class `label` were taken for class `predicted`; 0 for a class that there is not.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        if label.max(predicted) < self.classes { self.counts[label * self.classes + predicted] } else { 0 }
    }

    /// How many pixels are labelled with a class.
    pub fn labelled(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// For how many pixels a class was predicted.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|label| self.count(label, class)).sum()
    }

    /// How many pixels were counted.
    pub fn pixels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Intersection over union of a class; `None` where it is neither labelled nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let both = self.count(class, class);
        ratio(both as f64, (self.labelled(class) + self.predicted(class) - both) as f64)
    }

    /// The share of a class's pixels that was predicted right; `None` where it is not labelled.
    pub fn accuracy(&self, class: usize) -> Option<f64> {
        ratio(self.count(class, class) as f64, self.labelled(class) as f64)
    }

    /// Mean over all classes of the intersection over union, in which an absent class counts 0, as in the released code.
    pub fn mean_iou(&self) -> Option<f64> {
        let ious = (0..self.classes).map(|class| self.iou(class).unwrap_or(0.0));
        (self.pixels() > 0).then(|| ious.sum::<f64>() / self.classes as f64)
    }

    /// The share of all pixels that was predicted right.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        ratio(right as f64, self.pixels() as f64)
    }

    /// Mean of [`accuracy`](Self::accuracy) over the classes that are labelled.
    pub fn mean_accuracy(&self) -> Option<f64> {
        let accuracies: Vec<f64> = (0..self.classes).filter_map(|class| self.accuracy(class)).collect();
        ratio(accuracies.iter().sum(), accuracies.len() as f64)
    }
}
