//! Dropout of values and of whole residuals.

use super::Mode;
use candle_core::{Result, Tensor};

/// Sets values to zero with probability `rate` and scales the others by `1 / (1 - rate)`; the identity in evaluation.
pub fn dropout(x: &Tensor, rate: f64, mode: Mode) -> Result<Tensor> {
    masked(x, x.elem_count(), x.dims(), rate, mode)
}

/// Drops the whole residual of an image with probability `rate` and scales the others by `1 / (1 - rate)`.
///
/// # Shapes
/// `x` `[b, ..]`: one draw for each of the b.
pub fn drop_path(x: &Tensor, rate: f64, mode: Mode) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    dims[0] = x.dim(0)?;
    masked(x, dims[0], &dims, rate, mode)
}

fn masked(x: &Tensor, count: usize, dims: &[usize], rate: f64, mode: Mode) -> Result<Tensor> {
    match mode {
        Mode::Train(rng) if rate > 0.0 => {
            let mask = Tensor::from_vec(rng.keep(count, rate), dims, x.device())?.to_dtype(x.dtype())?;
            x.broadcast_mul(&mask)
        }
        _ => Ok(x.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::DropRng;
    use candle_core::{DType, Device};

    #[test]
    fn dropout_keeps_the_mean_and_drop_path_whole_images() -> Result<()> {
        let (x, rng) = (Tensor::ones((200, 50), DType::F32, &Device::Cpu)?, DropRng::seeded(3));
        let mean = dropout(&x, 0.25, Mode::Train(&rng))?.mean_all()?.to_scalar::<f32>()?;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        for image in drop_path(&x, 0.5, Mode::Train(&rng))?.to_vec2::<f32>()? {
            assert!(image.iter().all(|v| *v == image[0]) && [0.0, 2.0].contains(&image[0]));
        }
        assert_eq!(drop_path(&x, 0.5, Mode::Eval)?.id(), x.id());
        Ok(())
    }

    #[test]
    fn the_same_seed_drops_the_same() -> Result<()> {
        let x = Tensor::ones(64, DType::F32, &Device::Cpu)?;
        let draw = |seed| dropout(&x, 0.5, Mode::Train(&DropRng::seeded(seed)))?.to_vec1::<f32>();
        assert_eq!(draw(1)?, draw(1)?);
        assert_ne!(draw(1)?, draw(2)?);
        Ok(())
    }
}
