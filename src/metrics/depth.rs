//! Root mean square errors of depth.

use super::score::{Image, Score, Scores, ratio};

/// Sums over all valid pixels together.
#[derive(Clone, Debug, Default)]
pub(super) struct DepthMeter {
    pixels: u64,
    squares: f64,
    log_squares: f64,
}

impl DepthMeter {
    pub(super) fn add(&mut self, image: &Image) {
        for i in image.valid() {
            let (predicted, label) = (f64::from(image.outputs[i]).max(1e-9), f64::from(image.label[i]));
            self.pixels += 1;
            self.squares += (predicted - label).powi(2);
            self.log_squares += (predicted.ln() - label.max(1e-9).ln()).powi(2);
        }
    }

    pub(super) fn scores(&self) -> Scores {
        let root = |squares: f64| ratio(squares, self.pixels as f64).map(f64::sqrt);
        Scores {
            primary: Score::lower("rmse", root(self.squares)),
            others: vec![Score::lower("log_rmse", root(self.log_squares))],
        }
    }
}
