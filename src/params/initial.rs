//! Initial values from the crate's own seeded generator: candle's CPU device cannot be seeded.

use super::Group;
use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::Init;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal, Uniform};

/// Values for one weight, settled by the seed and the weight's name alone, so that adding a weight changes no other.
///
/// Prompts are drawn again until they lie in [-2, 2]: candle's [`Init`] has no truncated normal.
pub(super) fn draw(seed: u64, name: &str, group: Option<Group>, shape: &Shape, init: Init) -> Result<Vec<f32>> {
    let rng = StdRng::seed_from_u64(seed ^ fnv1a(name));
    let count = shape.elem_count();
    let normal = |mean: f64, stdev: f64| Normal::new(mean as f32, stdev as f32).map_err(Error::wrap);
    Ok(match init {
        Init::Const(value) => vec![value as f32; count],
        Init::Randn { mean, stdev } if group == Some(Group::Prompts) => {
            normal(mean, stdev)?.sample_iter(rng).filter(|v| v.abs() <= 2.0).take(count).collect()
        }
        Init::Randn { mean, stdev } => normal(mean, stdev)?.sample_iter(rng).take(count).collect(),
        Init::Uniform { lo, up } => {
            Uniform::new_inclusive(lo as f32, up as f32).map_err(Error::wrap)?.sample_iter(rng).take(count).collect()
        }
        Init::Kaiming { dist, fan, non_linearity } => {
            let stdev = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            let equal = match dist {
                candle_nn::init::NormalOrUniform::Normal => Init::Randn { mean: 0.0, stdev },
                candle_nn::init::NormalOrUniform::Uniform => {
                    let bound = 3f64.sqrt() * stdev;
                    Init::Uniform { lo: -bound, up: bound }
                }
            };
            draw(seed, name, group, shape, equal)?
        }
    })
}

/// [`draw`] as a tensor.
pub(super) fn tensor(values: Vec<f32>, shape: &Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
}

/// Uniform in ±1/sqrt(fan-in): PyTorch's default for convolutions and linears, weight and bias alike.
pub(crate) fn uniform_by_fan_in(fan_in: usize) -> Init {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Init::Uniform { lo: -bound, up: bound }
}

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f32, f32) {
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt())
    }

    #[test]
    fn distributions_are_as_asked_and_prompts_truncated() {
        let shape = Shape::from((100, 100));
        let init = Init::Randn { mean: 1.0, stdev: 1.0 };
        let (mean, stdev) = moments(&draw(0, "w", None, &shape, init).unwrap());
        assert!((mean - 1.0).abs() < 0.05 && (stdev - 1.0).abs() < 0.05);
        let prompts = draw(0, "w", Some(Group::Prompts), &shape, init).unwrap();
        assert!(prompts.iter().all(|v| v.abs() <= 2.0));
        assert!((moments(&prompts).0 - 0.7221).abs() < 0.05, "the mean of N(1, 1) cut to [-2, 2]");
        let (mean, stdev) = moments(&draw(0, "w", None, &shape, uniform_by_fan_in(100)).unwrap());
        assert!(mean.abs() < 0.003 && (stdev - 0.1 / 3f32.sqrt()).abs() < 0.002);
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let draw = |seed, name| draw(seed, name, None, &Shape::from(8), uniform_by_fan_in(4)).unwrap();
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
