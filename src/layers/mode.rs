//! Whether a forward pass trains, and the random numbers of one that does.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Evaluation, or training with a generator for dropout and drop-path.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// Nothing is dropped, running statistics are used.
    Eval,
    /// Dropout and drop-path draw from the generator; BatchNorm uses and updates with the batch's statistics.
    Train(&'a DropRng),
}

/// The crate's own generator for dropout and drop-path: seeded, since candle's CPU device cannot be.
#[derive(Debug)]
pub struct DropRng(Mutex<StdRng>);

impl DropRng {
    /// A generator that gives the same draws for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// `count` factors, each 0 with probability `rate` and `1 / (1 - rate)` otherwise.
    pub(super) fn keep(&self, count: usize, rate: f64) -> Vec<f64> {
        let mut rng = self.lock();
        (0..count).map(|_| if rng.random::<f64>() < rate { 0.0 } else { 1.0 / (1.0 - rate) }).collect()
    }

    /// What tells one dropout from the next.
    pub(super) fn seed(&self) -> u64 {
        self.lock().random()
    }

    fn lock(&self) -> MutexGuard<'_, StdRng> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
