//! The best threshold's mean IoU and F of salient regions.

use super::score::{Image, Score, Scores, sigmoid};

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

    pub(super) fn scores(&self) -> Scores {
        let n = self.images as f64;
        let best = |values: &dyn Fn(usize) -> f64| {
            (self.images > 0).then(|| (0..THRESHOLDS).map(values).fold(f64::MIN, f64::max))
        };
        let f = |t: usize| {
            let (p, r) = (self.precision[t] / n, self.recall[t] / n);
            if p + r > 0.0 { 2.0 * p * r / (p + r) } else { 0.0 }
        };
        Scores {
            primary: Score::higher("max_iou", best(&|t| self.iou[t] / n)),
            others: vec![Score::higher("max_f", best(&f))],
        }
    }
}
