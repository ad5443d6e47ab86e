//! Whether a forward pass trains, and what one that does needs to know.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Evaluation or training.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// Nothing is dropped, running statistics are used.
    Eval,
    /// Dropout and drop-path draw from the pass's generator; BatchNorm normalises by the batch's statistics and updates the running ones.
    Train(&'a TrainingPass),
}

/// A training pass: the crate's own generator for dropout and drop-path, seeded, since candle's CPU device cannot be.
///
/// What a pass keeps for backward is no part of it: [`GradientCheckpointing::run`](crate::ops::GradientCheckpointing::run) says it.
///
/// ```
/// use tadformer::layers::{Mode, TrainingPass, drop_path};
/// let draw = |seed| drop_path(64, 0.5, Mode::Train(&TrainingPass::seeded(seed)));
/// assert_eq!(draw(7), draw(7));
/// assert_ne!(draw(7), draw(8));
/// ```
#[derive(Debug)]
pub struct TrainingPass {
    rng: Mutex<StdRng>,
}

impl TrainingPass {
    /// A pass that draws the same for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// `count` factors, each 0 with probability `rate` and `1 / (1 - rate)` otherwise.
    pub(super) fn keep(&self, count: usize, rate: f64) -> Vec<f64> {
        let mut rng = self.lock();
        (0..count).map(|_| if rng.random::<f64>() < rate { 0.0 } else { 1.0 / (1.0 - rate) }).collect()
    }

    /// What tells one dropout from the next.
    pub(crate) fn seed(&self) -> u64 {
        self.lock().random()
    }

    fn lock(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
