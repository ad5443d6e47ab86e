//! Named tensors beside more exact ones.

use anyhow::Context;
use serde::Serialize;
use std::collections::BTreeMap;
use tadformer::candle_core::{DType, Device, Result, Tensor};

/// Tensors by name.
pub type Named = BTreeMap<String, Tensor>;

/// One tensor's errors against f64, each a norm of the difference over the norm of the exact one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Errors {
    pub name: String,
    /// Of the device that is checked.
    pub device: f64,
    /// Of the CPU's composed definitions in f32.
    pub cpu_f32: f64,
    /// Between these two.
    pub between: f64,
}

impl Errors {
    /// Within `limit`, or no more than three times what f32 costs on the CPU.
    pub fn passes(&self, limit: f64) -> bool {
        self.device <= limit.max(3.0 * self.cpu_f32)
    }
}

/// The errors of all tensors. One that is nearly zero beside the others of its block or decoder is measured by a tenth of the largest of
/// them: its own digits are rounding.
pub fn errors(device: &Named, cpu_f32: &Named, exact: &Named) -> anyhow::Result<Vec<Errors>> {
    let mut largest = BTreeMap::<String, f64>::new();
    for (name, tensor) in exact {
        let of_group = largest.entry(group(name)).or_default();
        *of_group = of_group.max(rms(tensor)?);
    }
    let error = |(name, exact): (&String, &Tensor)| {
        let get = |all: &Named| all.get(name).cloned().with_context(|| format!("no {name}"));
        let (device, cpu_f32) = (get(device)?, get(cpu_f32)?);
        let least = 0.1 * largest.get(&group(name)).copied().unwrap_or_default();
        let over = rms(exact)?.max(least).max(1e-30);
        let relative = |a: &Tensor, b: &Tensor| anyhow::Ok(rms(&(wide(a)? - wide(b)?)?)? / over);
        Ok(Errors {
            name: name.clone(),
            device: relative(&device, exact)?,
            cpu_f32: relative(&cpu_f32, exact)?,
            between: relative(&device, &cpu_f32)?,
        })
    };
    exact.iter().map(error).collect()
}

/// The tensor whose device is furthest off.
pub fn worst(errors: &[Errors]) -> Errors {
    errors.iter().max_by(|a, b| a.device.total_cmp(&b.device)).cloned().unwrap_or_default()
}

/// A block, a decoder: `layers.1.blocks.0` of all its weights, `heads.depth` of its own.
fn group(name: &str) -> String {
    let words: Vec<&str> = name.split('.').collect();
    words[..words.len().saturating_sub(2).clamp(1, 4)].join(".")
}

/// In f64 on the CPU.
pub fn wide(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}

/// Root mean square.
pub fn rms(tensor: &Tensor) -> Result<f64> {
    Ok(wide(tensor)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt())
}
