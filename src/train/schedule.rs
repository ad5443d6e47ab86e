//! The learning rate over the steps: a linear warm-up, then half a cosine.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A learning rate that rises linearly from `start` to `base` over `warmup` steps, then falls along a cosine to `end` at `steps`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub base: f64,
    /// The rate of the first step.
    pub start: f64,
    /// The rate of the last step.
    pub end: f64,
    /// Steps of rising.
    pub warmup: usize,
    /// All steps.
    pub steps: usize,
}

impl Schedule {
    /// The released recipe's proportions: a fifteenth of the steps rising from a thousandth of `base`, ending at a hundredth of it.
    pub fn new(base: f64, steps: usize) -> Self {
        Self { base, start: base / 1000.0, end: base / 100.0, warmup: steps / 15, steps }
    }

    /// The recipe's base rate for a batch: 5e-4 for 512 images, in proportion.
    pub fn recipe_rate(batch: usize) -> f64 {
        5e-4 * batch as f64 / 512.0
    }

    /// The rate of `step`, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.start + (self.base - self.start) * step as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup + 1).max(1);
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        self.end + (self.base - self.end) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }

    /// Checks that every rate is a number that can train.
    ///
    /// # Errors
    /// A rate that is negative or no number, a base of 0, no steps, a warm-up longer than the steps.
    pub fn check(&self) -> Result<()> {
        let cure = "fresh adapters train well near 1e-3, pretrained backbones near 5e-5";
        for (field, rate) in [("rate", self.base), ("start", self.start), ("end", self.end)] {
            if !rate.is_finite() || rate < 0.0 || (field == "rate" && rate == 0.0) {
                return Err(Error::config(field, "a positive number", rate, cure));
            }
        }
        if self.steps == 0 {
            return Err(Error::config("steps", "at least 1", 0, "each step trains on one batch"));
        }
        if self.warmup > self.steps {
            let expected = format!("at most the {} steps", self.steps);
            return Err(Error::config("warmup", expected, self.warmup, "a fifteenth of the steps is usual"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_between_the_given_rates() {
        let schedule = Schedule { base: 1.0, start: 0.1, end: 0.01, warmup: 10, steps: 101 };
        assert_eq!(schedule.rate(0), 0.1);
        assert!((schedule.rate(5) - 0.55).abs() < 1e-12);
        assert_eq!(schedule.rate(10), 1.0);
        assert!((schedule.rate(55) - 0.505).abs() < 1e-12, "the cosine's middle");
        assert!((schedule.rate(100) - 0.01).abs() < 1e-12 && (schedule.rate(500) - 0.01).abs() < 1e-12);
        assert!((Schedule::recipe_rate(32) - 3.125e-5).abs() < 1e-18);
    }

    #[test]
    fn each_bad_field_is_named() {
        let bad = |field: &str, change: fn(&mut Schedule)| {
            let mut schedule = Schedule::new(1e-3, 100);
            change(&mut schedule);
            assert!(schedule.check().unwrap_err().to_string().starts_with(&format!("`{field}`")));
        };
        bad("rate", |s| s.base = 0.0);
        bad("rate", |s| s.base = f64::NAN);
        bad("start", |s| s.start = -1.0);
        bad("end", |s| s.end = f64::INFINITY);
        bad("steps", |s| s.steps = 0);
        bad("warmup", |s| s.warmup = 101);
    }
}
