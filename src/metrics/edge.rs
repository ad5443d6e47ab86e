//! The best threshold's F of edges, pixel by pixel, over the whole set: the quick figure beside odsF.

use super::score::{Image, PrecisionRecall, Score, Scores, ratio, sigmoid};

/// Edge and other pixels by predicted probability, in hundredths.
#[derive(Clone, Debug)]
pub(super) struct EdgeMeter {
    edges: Vec<u64>,
    others: Vec<u64>,
}

const BINS: usize = 101;

impl Default for EdgeMeter {
    fn default() -> Self {
        Self { edges: vec![0; BINS], others: vec![0; BINS] }
    }
}

impl EdgeMeter {
    pub(super) fn add(&mut self, image: &Image) {
        for i in image.valid() {
            let bin = (sigmoid(image.outputs[i]) * 100.0) as usize;
            let counts = if image.label[i] >= 0.5 { &mut self.edges } else { &mut self.others };
            counts[bin.min(BINS - 1)] += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let add = |counts: &mut Vec<u64>, other: &[u64]| counts.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        add(&mut self.edges, &other.edges);
        add(&mut self.others, &other.others);
    }

    /// At thresholds 0.01 .. 0.99: predicted are the bins from there on.
    pub(super) fn curve(&self) -> Vec<PrecisionRecall> {
        let all: u64 = self.edges.iter().sum();
        let at = |t: usize| {
            let hits: u64 = self.edges[t..].iter().sum();
            let predicted = hits + self.others[t..].iter().sum::<u64>();
            let share = |of: u64| ratio(hits as f64, of as f64).unwrap_or(0.0);
            PrecisionRecall::new(Some(t as f64 / 100.0), share(predicted), share(all))
        };
        (1..100).map(at).collect()
    }

    pub(super) fn scores(&self) -> Scores {
        let seen = self.edges.iter().chain(&self.others).any(|count| *count > 0);
        let best = seen.then(|| self.curve().iter().map(|point| point.f).fold(0.0, f64::max));
        Scores { primary: Score::higher("max_f", best), others: vec![] }
    }
}
