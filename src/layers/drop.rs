//! What training drops: whole residuals, whole channels, single values.

use super::Mode;
use crate::ops::Dropout;
use candle_core::{Result, Tensor};

/// Each image's factor of a residual: 0 with probability `rate`, else `1 / (1 - rate)`; `None` where nothing is dropped.
pub fn drop_path(images: usize, rate: f64, mode: Mode) -> Option<Vec<f64>> {
    match mode {
        Mode::Train(rng) if rate > 0.0 => Some(rng.keep(images, rate)),
        _ => None,
    }
}

/// Each channel's factor in each image, image by image, drawn as [`drop_path`] draws those of residuals.
pub(crate) fn drop_channels(images: usize, channels: usize, rate: f64, mode: Mode) -> Option<Vec<f64>> {
    drop_path(images * channels, rate, mode)
}

/// Each value dropped with probability `rate`, or divided by `1 - rate`, in training.
pub(crate) fn dropout(x: &Tensor, rate: f64, mode: Mode) -> Result<Tensor> {
    match mode {
        Mode::Train(rng) if rate > 0.0 => x * Dropout { rate, seed: rng.seed() }.of(x)?,
        _ => Ok(x.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::TrainingPass;

    #[test]
    fn a_residual_is_dropped_whole_or_scaled_so_that_the_mean_stays() {
        let rng = TrainingPass::seeded(3);
        let factors = drop_path(10_000, 0.25, Mode::Train(&rng)).unwrap();
        assert!(factors.iter().all(|factor| [0.0, 1.0 / 0.75].contains(factor)));
        let mean = factors.iter().sum::<f64>() / 10_000.0;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert_eq!(drop_path(2, 0.5, Mode::Eval), None);
        assert_eq!(drop_path(2, 0.0, Mode::Train(&rng)), None);
    }

    #[test]
    fn the_same_seed_drops_the_same() {
        let draw = |seed| drop_path(64, 0.5, Mode::Train(&TrainingPass::seeded(seed)));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
