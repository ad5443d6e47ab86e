//! Angles between predicted and true normals.

use super::histogram::Histogram;
use super::score::{Image, Score, Scores, ratio};
use crate::sample::IGNORE;

/// Sums, counts below the usual angles, and a histogram for the median, which it gives to half a hundredth of a degree.
#[derive(Clone, Debug)]
pub(super) struct NormalsMeter {
    pixels: u64,
    sum: f64,
    squares: f64,
    below: [u64; 3],
    pub(super) errors: Histogram,
}

const SHARES: [f64; 3] = [11.25, 22.5, 30.0];
const BINS_A_DEGREE: f64 = 100.0;

impl Default for NormalsMeter {
    fn default() -> Self {
        Self { pixels: 0, sum: 0.0, squares: 0.0, below: [0; 3], errors: Histogram::new(BINS_A_DEGREE, 180.0) }
    }
}

impl NormalsMeter {
    pub(super) fn add(&mut self, image: &Image) {
        let at =
            |values: &[f32], i: usize| -> [f64; 3] { std::array::from_fn(|c| f64::from(values[c * image.pixels + i])) };
        for i in 0..image.pixels {
            let label = at(image.label, i);
            if label.contains(&f64::from(IGNORE)) {
                continue;
            }
            let degrees = angle(at(image.outputs, i), label).to_degrees();
            self.pixels += 1;
            self.sum += degrees;
            self.squares += degrees * degrees;
            for (count, limit) in self.below.iter_mut().zip(SHARES) {
                *count += u64::from(degrees < limit);
            }
            self.errors.add(degrees);
        }
    }

    pub(super) fn scores(&self) -> Scores {
        let n = self.pixels as f64;
        let mut others = vec![
            Score::lower("rmse_degrees", ratio(self.squares, n).map(f64::sqrt)),
            Score::lower("median_degrees", self.errors.median()),
        ];
        let shares = self.below.iter().zip(SHARES);
        others.extend(shares.map(|(count, limit)| Score::higher(&format!("below_{limit}"), ratio(*count as f64, n))));
        Scores { primary: Score::lower("mean_degrees", ratio(self.sum, n)), others }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.pixels += other.pixels;
        self.sum += other.sum;
        self.squares += other.squares;
        self.below.iter_mut().zip(other.below).for_each(|(count, other)| *count += other);
        self.errors.merge(&other.errors);
    }
}

/// Between two vectors, in radians, exact for small angles too; a prediction of length 0 is at a right angle.
fn angle(a: [f64; 3], b: [f64; 3]) -> f64 {
    let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    let sine = cross.iter().map(|v| v * v).sum::<f64>().sqrt();
    if sine == 0.0 && dot == 0.0 { std::f64::consts::FRAC_PI_2 } else { sine.atan2(dot) }
}
