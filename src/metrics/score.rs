//! One figure, and what is said of it.

use crate::sample::IGNORE;
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// Its name, such as `miou`.
    pub name: String,
    /// Its value; `None` before a valid pixel was seen.
    pub value: Option<f64>,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// A task's figures.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// The one that papers report.
    pub primary: Score,
    /// The others.
    pub others: Vec<Score>,
}

impl Scores {
    /// The value of the figure of this name, where there is one.
    pub fn get(&self, name: &str) -> Option<f64> {
        std::iter::once(&self.primary).chain(&self.others).find(|score| score.name == name)?.value
    }
}

impl Score {
    /// A figure of which more is better.
    pub fn higher(name: &str, value: Option<f64>) -> Self {
        Self { name: name.to_owned(), value, higher_is_better: true }
    }

    /// A figure of which less is better.
    pub fn lower(name: &str, value: Option<f64>) -> Self {
        Self { name: name.to_owned(), value, higher_is_better: false }
    }

    /// Where better lies, as tables show it: ↑ or ↓.
    pub fn arrow(&self) -> char {
        if self.higher_is_better { '↑' } else { '↓' }
    }
}

/// Precision, recall and F at a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PrecisionRecall {
    /// The threshold; `None` where each image has its own.
    pub threshold: Option<f64>,
    /// How much of what is predicted is true.
    pub precision: f64,
    /// How much of what is true is predicted.
    pub recall: f64,
    /// `2 P R / (P + R)`, 0 where both are 0.
    pub f: f64,
}

impl PrecisionRecall {
    pub(super) fn new(threshold: Option<f64>, precision: f64, recall: f64) -> Self {
        let sum = precision + recall;
        let f = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Self { threshold, precision, recall, f }
    }
}

/// One image's outputs and label: `[n, H*W]` scores beside `[c, H*W]` values.
pub(crate) struct Image<'a> {
    pub(super) outputs: &'a [f32],
    pub(super) label: &'a [f32],
    pub(super) pixels: usize,
}

impl Image<'_> {
    /// Pixels that are not ignored, of a label with one channel.
    pub(super) fn valid(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.pixels).filter(|i| self.label[*i] != IGNORE)
    }
}

/// `a / b`, or nothing where b is 0.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
