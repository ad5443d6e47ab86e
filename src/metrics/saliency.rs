//! The best threshold's mean IoU and F of salient regions.

use super::score::{Image, PrecisionRecall, Score, Scores, ratio, sigmoid};

/// 0.20, 0.25 .. 0.90.
const THRESHOLDS: usize = 15;

fn threshold(i: usize) -> f32 {
    0.20 + 0.05 * i as f32
}

/// Sums over images, for each threshold.
#[derive(Clone, Debug, Default)]
pub(super) struct SaliencyMeter {
    images: u64,
    iou: [f64; THRESHOLDS],
    precision: [f64; THRESHOLDS],
    recall: [f64; THRESHOLDS],
}

impl SaliencyMeter {
    pub(super) fn add(&mut self, image: &Image) {
        let pixels: Vec<(f32, bool)> =
            image.valid().map(|i| (sigmoid(image.outputs[i]), image.label[i] >= 0.5)).collect();
        if pixels.is_empty() {
            return;
        }
        self.images += 1;
        let salient = pixels.iter().filter(|(_, label)| *label).count() as f64;
        for t in 0..THRESHOLDS {
            let chosen = pixels.iter().filter(|(p, _)| *p > threshold(t));
            let (predicted, both) =
                chosen.fold((0.0, 0.0), |(n, both), (_, label)| (n + 1.0, both + f64::from(*label)));
            let union = predicted + salient - both;
            self.iou[t] += if union > 0.0 { both / union } else { 1.0 };
            self.precision[t] += if predicted > 0.0 { both / predicted } else { 0.0 };
            self.recall[t] += if salient > 0.0 { both / salient } else { 0.0 };
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let add = |sums: &mut [f64], other: &[f64]| sums.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        self.images += other.images;
        add(&mut self.iou, &other.iou);
        add(&mut self.precision, &other.precision);
        add(&mut self.recall, &other.recall);
    }

    /// Mean precision and recall over images at each threshold.
    pub(super) fn curve(&self) -> Vec<PrecisionRecall> {
        let mean = |sum: f64| ratio(sum, self.images as f64).unwrap_or(0.0);
        let at = |t: usize| {
            PrecisionRecall::new(Some((20 + 5 * t) as f64 / 100.0), mean(self.precision[t]), mean(self.recall[t]))
        };
        (0..THRESHOLDS).map(at).collect()
    }

    pub(super) fn scores(&self) -> Scores {
        let best = |values: &mut dyn Iterator<Item = f64>| (self.images > 0).then(|| values.fold(0.0, f64::max));
        let n = self.images as f64;
        Scores {
            primary: Score::higher("max_iou", best(&mut self.iou.iter().map(|sum| sum / n))),
            others: vec![Score::higher("max_f", best(&mut self.curve().iter().map(|point| point.f)))],
        }
    }
}
