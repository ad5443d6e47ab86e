//! How errors are spread, in bins of one width.

use serde::Serialize;
/// Counts of errors from 0 on, in bins of one width; the last holds whatever is larger, too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    bins_a_unit: f64,
    counts: Vec<u64>,
}

impl Histogram {
    /// Bins for errors from 0 to `largest`.
    pub(super) fn new(bins_a_unit: f64, largest: f64) -> Self {
        Self { bins_a_unit, counts: vec![0; (bins_a_unit * largest) as usize + 1] }
    }

    pub(super) fn add(&mut self, error: f64) {
        let last = self.counts.len() - 1;
        self.counts[((error * self.bins_a_unit) as usize).min(last)] += 1;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, other)| *count += other);
    }

    /// How wide a bin is: the k-th (from 0) holds errors from k to k + 1 times this.
    pub fn width(&self) -> f64 {
        1.0 / self.bins_a_unit
    }

    /// How many errors each bin holds.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The median, to half a bin: the middle of the bin that it lies in; `None` without an error.
    pub fn median(&self) -> Option<f64> {
        let (mut seen, all) = (0, self.counts.iter().sum::<u64>());
        let bin = self.counts.iter().position(|count| {
            seen += count;
            2 * seen >= all && seen > 0
        });
        bin.map(|bin| (bin as f64 + 0.5) / self.bins_a_unit)
    }
}
