//! Errors of depth.

use super::histogram::Histogram;
use super::score::{Image, Score, Scores, ratio};

/// Sums over all valid pixels together.
#[derive(Clone, Debug)]
pub(super) struct DepthMeter {
    pixels: u64,
    squares: f64,
    logs: f64,
    log_squares: f64,
    relative: f64,
    relative_squares: f64,
    within: [u64; 3],
    /// Relative errors.
    pub(super) errors: Histogram,
}

/// Nothing is nearer than this: what is divided by or taken the logarithm of.
const NEAREST: f64 = 1e-9;

impl Default for DepthMeter {
    fn default() -> Self {
        Self {
            pixels: 0,
            squares: 0.0,
            logs: 0.0,
            log_squares: 0.0,
            relative: 0.0,
            relative_squares: 0.0,
            within: [0; 3],
            errors: Histogram::new(200.0, 1.0),
        }
    }
}

impl DepthMeter {
    pub(super) fn add(&mut self, image: &Image) {
        for i in image.valid() {
            let (predicted, label) = (f64::from(image.outputs[i]).max(NEAREST), f64::from(image.label[i]));
            let (error, positive) = ((predicted - label).abs(), label.max(NEAREST));
            let log = predicted.ln() - positive.ln();
            self.pixels += 1;
            self.squares += error * error;
            self.logs += log;
            self.log_squares += log * log;
            self.relative += error / positive;
            self.relative_squares += error * error / positive;
            let factor = (predicted / positive).max(positive / predicted);
            for (count, n) in self.within.iter_mut().zip(1..) {
                *count += u64::from(factor < 1.25f64.powi(n));
            }
            self.errors.add(error / positive);
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.pixels += other.pixels;
        self.squares += other.squares;
        self.logs += other.logs;
        self.log_squares += other.log_squares;
        self.relative += other.relative;
        self.relative_squares += other.relative_squares;
        self.within.iter_mut().zip(other.within).for_each(|(count, other)| *count += other);
        self.errors.merge(&other.errors);
    }

    pub(super) fn scores(&self) -> Scores {
        let mean = |sum: f64| ratio(sum, self.pixels as f64);
        let root = |squares: f64| mean(squares).map(f64::sqrt);
        let spread = mean(self.log_squares).zip(mean(self.logs)).map(|(squares, log)| (squares - log * log).max(0.0));
        let mut others = vec![
            Score::lower("log_rmse", root(self.log_squares)),
            Score::lower("si_log_rmse", spread.map(f64::sqrt)),
            Score::lower("abs_rel", mean(self.relative)),
            Score::lower("sq_rel", mean(self.relative_squares)),
        ];
        let within = self.within.iter().zip(1..);
        others.extend(within.map(|(count, n)| Score::higher(&format!("delta_{n}"), mean(*count as f64))));
        Scores { primary: Score::lower("rmse", root(self.squares)), others }
    }
}
