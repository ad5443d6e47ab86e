//! Intersection over union and accuracy of classes.

use super::confusion::Confusion;
use super::score::{Image, Score, Scores};

/// Counts which classes are taken for which; the class with the highest score is predicted.
#[derive(Clone, Debug)]
pub(super) struct SegmentationMeter {
    pub(super) confusion: Confusion,
    /// What the classes are called.
    pub(super) names: Vec<String>,
}

impl SegmentationMeter {
    pub(super) fn new(classes: usize) -> Self {
        Self { confusion: Confusion::new(classes), names: (0..classes).map(|class| class.to_string()).collect() }
    }

    pub(super) fn add(&mut self, image: &Image) {
        let classes = self.confusion.classes();
        for i in image.valid() {
            let score = |class: usize| image.outputs[class * image.pixels + i];
            let best = (1..classes).fold(0, |best, class| if score(class) > score(best) { class } else { best });
            self.confusion.add(image.label[i] as usize, best);
        }
    }

    pub(super) fn scores(&self) -> Scores {
        let confusion = &self.confusion;
        let seen = confusion.pixels() > 0;
        let iou = |class: usize| seen.then(|| confusion.iou(class).unwrap_or(0.0));
        let classes = self.names.iter().enumerate();
        let mut others = vec![
            Score::higher("pixel_accuracy", confusion.pixel_accuracy()),
            Score::higher("mean_accuracy", confusion.mean_accuracy()),
        ];
        others.extend(classes.map(|(class, name)| Score::higher(&format!("iou_{name}"), iou(class))));
        Scores { primary: Score::higher("miou", confusion.mean_iou()), others }
    }
}
