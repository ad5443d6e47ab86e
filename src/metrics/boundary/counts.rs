//! What one image adds to the figures of edges, threshold by threshold.

use super::matching::Matching;
use super::truth::BoundaryTruth;
use crate::bitmap::Bitmap;
use rayon::prelude::*;

/// One image's matched, predicted and true pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundaryCounts {
    /// For each threshold, how many predicted pixels are matched with a true one: the largest one-to-one matching.
    pub matched: Vec<u64>,
    /// For each threshold, how many pixels are predicted.
    pub predicted: Vec<u64>,
    /// How many pixels are true.
    pub truth: u64,
    /// Whether anything is known of the image.
    pub(super) known: bool,
}

/// How many thresholds one thread counts in a row: each starts from what the last one matched.
const RUN: usize = 16;

impl BoundaryCounts {
    /// Counts at `thresholds` thresholds a prediction of which each pixel's level is how many of them it passes.
    pub(super) fn of(levels: &[u8], thresholds: usize, truth: &BoundaryTruth, distance: f64) -> Self {
        let mut pixels_at = [0u64; u8::MAX as usize + 1];
        levels.iter().for_each(|level| pixels_at[usize::from(*level)] += 1);
        let image = Image { levels, pixels_at, truth, distance };
        let mut counts = vec![(0, 0); thresholds];
        counts.par_chunks_mut(RUN).enumerate().for_each(|(i, run)| image.count(i * RUN, run));
        let (matched, predicted) = counts.into_iter().unzip();
        Self { matched, predicted, truth: truth.edges.count(), known: !truth.is_unknown() }
    }
}

/// A prediction beside its truth.
struct Image<'a> {
    levels: &'a [u8],
    /// How many pixels have each level.
    pixels_at: [u64; u8::MAX as usize + 1],
    truth: &'a BoundaryTruth,
    distance: f64,
}

impl Image<'_> {
    /// Matched and predicted pixels at the thresholds from the `first` on, from the highest down: each map holds most of what the last
    /// one held, and is the last one where no pixel lies between them.
    fn count(&self, first: usize, run: &mut [(u64, u64)]) {
        let mut matching = Matching::new(&self.truth.edges, self.distance);
        let mut last = None;
        for (k, slot) in run.iter_mut().enumerate().rev() {
            let counts = match last {
                Some(counts) if self.pixels_at[first + k + 1] == 0 => counts,
                _ => {
                    let edges = self.edges(first + k);
                    (matching.largest(&edges), edges.count())
                }
            };
            (*slot, last) = (counts, Some(counts));
        }
    }

    /// The predicted edges at a threshold.
    fn edges(&self, threshold: usize) -> Bitmap {
        let [height, width] = self.truth.size();
        let mut edges = Bitmap::of(self.levels, height, width, |level| usize::from(level) > threshold);
        edges.thin();
        self.truth.unknown.iter().for_each(|unknown| edges.subtract(unknown));
        edges
    }
}
