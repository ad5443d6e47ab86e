//! Intersection over union of classes.

use super::score::{Image, Score, Scores, ratio};

/// Counts, for each class, pixels of its label, of its prediction, and of both.
#[derive(Clone, Debug)]
pub(super) struct SegmentationMeter {
    label: Vec<u64>,
    predicted: Vec<u64>,
    both: Vec<u64>,
}

impl SegmentationMeter {
    pub(super) fn new(classes: usize) -> Self {
        Self { label: vec![0; classes], predicted: vec![0; classes], both: vec![0; classes] }
    }

    pub(super) fn add(&mut self, image: &Image) {
        for i in image.valid() {
            let score = |class: usize| image.outputs[class * image.pixels + i];
            let best =
                (1..self.label.len()).fold(0, |best, class| if score(class) > score(best) { class } else { best });
            let label = image.label[i] as usize;
            self.predicted[best] += 1;
            self.label[label] += 1;
            if label == best {
                self.both[best] += 1;
            }
        }
    }

    pub(super) fn scores(&self) -> Scores {
        let counts = self.label.iter().zip(&self.predicted).zip(&self.both);
        let ious: Vec<f64> = counts
            .map(|((label, predicted), both)| ratio(*both as f64, (label + predicted - both) as f64).unwrap_or(0.0))
            .collect();
        let seen = self.label.iter().any(|count| *count > 0);
        let mean = seen.then(|| ious.iter().sum::<f64>() / ious.len() as f64);
        let classes =
            ious.iter().enumerate().map(|(class, iou)| Score::higher(&format!("iou_{class}"), seen.then_some(*iou)));
        Scores { primary: Score::higher("miou", mean), others: classes.collect() }
    }
}
