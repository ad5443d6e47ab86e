//! The best threshold's F of edges, over the pixels of the whole set.

use super::score::{Image, Score, Scores, sigmoid};

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

    pub(super) fn scores(&self) -> Scores {
        let seen = self.edges.iter().chain(&self.others).any(|count| *count > 0);
        let all: u64 = self.edges.iter().sum();
        // Predicted at threshold t hundredths: the bins from t on. F is 2 hits / (edges + predicted).
        let f = |t: usize| {
            let hits: u64 = self.edges[t..].iter().sum();
            let wrong: u64 = self.others[t..].iter().sum();
            if all + hits + wrong == 0 { 0.0 } else { 2.0 * hits as f64 / (all + hits + wrong) as f64 }
        };
        let best = seen.then(|| (1..100).map(f).fold(0.0, f64::max));
        Scores { primary: Score::higher("max_f", best), others: vec![] }
    }
}
