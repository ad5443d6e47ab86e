//! Whether a forward pass trains, and what one that does needs to know.

use crate::ops::GradientCheckpointing;
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

impl Mode<'_> {
    /// Whether blocks keep what backward needs or make it again.
    pub fn gradient_checkpointing(self) -> GradientCheckpointing {
        match self {
            Self::Eval => GradientCheckpointing::Off,
            Self::Train(pass) => pass.checkpoint,
        }
    }
}

/// A training pass: the crate's own generator for dropout and drop-path, seeded, since candle's CPU device cannot be; and
/// whether blocks keep what backward needs.
///
/// ```
/// use tadformer::layers::{Mode, TrainingPass};
/// use tadformer::ops::GradientCheckpointing;
/// let pass = TrainingPass::seeded(7).with_gradient_checkpointing(GradientCheckpointing::On);
/// assert_eq!(Mode::Train(&pass).gradient_checkpointing(), GradientCheckpointing::On);
/// ```
#[derive(Debug)]
pub struct TrainingPass {
    rng: Mutex<StdRng>,
    checkpoint: GradientCheckpointing,
}

impl TrainingPass {
    /// A pass that draws the same for the same seed and keeps what backward needs.
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Mutex::new(StdRng::seed_from_u64(seed)), checkpoint: GradientCheckpointing::Off }
    }

    /// The same pass with another answer to what blocks keep. It changes no gradient, only memory and time.
    pub fn with_gradient_checkpointing(self, checkpoint: GradientCheckpointing) -> Self {
        Self { checkpoint, ..self }
    }

    /// `count` factors, each 0 with probability `rate` and `1 / (1 - rate)` otherwise.
    pub(super) fn keep(&self, count: usize, rate: f64) -> Vec<f64> {
        let mut rng = self.lock();
        (0..count).map(|_| if rng.random::<f64>() < rate { 0.0 } else { 1.0 / (1.0 - rate) }).collect()
    }

    /// Whether blocks keep what backward needs or make it again.
    pub fn gradient_checkpointing(&self) -> GradientCheckpointing {
        self.checkpoint
    }

    /// What tells one dropout from the next.
    pub(crate) fn seed(&self) -> u64 {
        self.lock().random()
    }

    fn lock(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
