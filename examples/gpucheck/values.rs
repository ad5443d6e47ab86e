//! Outputs and gradients of a tiny model.

use crate::checks::Verdict;
use crate::compare::{Errors, Named, errors, rms, wide, worst};
use crate::tiny::{Place, Rates, by_task, images, model, outputs_and_gradients};
use serde_json::json;
use tadformer::candle_core::{DType, Device};
use tadformer::layers::Mode;
use tadformer::ops::Definition;

/// Errors that rounding may cause, as in the comparison with PyTorch.
const OUTPUTS: f64 = 1e-4;
const GRADIENTS: f64 = 1e-3;

/// Of what half precision leaves.
const HALF: f64 = 0.1;

#[derive(Clone, Copy)]
pub enum Drops {
    Nothing,
    /// Dropout and drop-path, of one seed on every device.
    Seeded,
}

/// A training pass on the device, beside the CPU's in f32 and f64.
pub fn check(on: &Device, drops: Drops) -> anyhow::Result<Verdict> {
    let rates = match drops {
        Drops::Nothing => Rates::NONE,
        Drops::Seeded => Rates { dropout: 0.2, drop_path: 0.3 },
    };
    let here = outputs_and_gradients(Place::on(on), rates)?;
    let single = outputs_and_gradients(Place::reference(DType::F32), rates)?;
    let double = outputs_and_gradients(Place::reference(DType::F64), rates)?;
    anyhow::ensure!(!double.1.is_empty() && here.1.len() == double.1.len(), "{} gradients", here.1.len());
    let outputs = errors(&here.0, &single.0, &double.0)?;
    let gradients = errors(&here.1, &single.1, &double.1)?;
    let above = |errors: &[Errors], limit| -> Vec<Errors> {
        errors.iter().filter(|error| !error.passes(limit)).cloned().collect()
    };
    let above = [above(&outputs, OUTPUTS), above(&gradients, GRADIENTS)].concat();
    let figures = json!({
        "gradients": gradients.len(), "worst_output": worst(&outputs), "worst_gradient": worst(&gradients), "above": above,
    });
    Ok(Verdict { passes: above.is_empty(), figures })
}

/// A forward pass in bf16, beside the device's own in f32. Candle multiplies no bf16 on the CPU: there it is f16.
pub fn half(on: &Device) -> anyhow::Result<Verdict> {
    let dtype = if on.is_cpu() { DType::F16 } else { DType::BF16 };
    let forward = |dtype: DType| -> anyhow::Result<Named> {
        let at = Place { device: on, dtype, definition: Definition::Fused };
        Ok(by_task(&model(at, Rates::NONE)?.forward(&images(at, 2, 0.37)?, Mode::Eval)?))
    };
    let (half, single) = (forward(dtype)?, forward(DType::F32)?);
    let error = |(task, want): (&String, _)| {
        anyhow::Ok((task.clone(), rms(&(wide(&half[task])? - wide(want)?)?)? / rms(want)?))
    };
    let errors = single.iter().map(error).collect::<anyhow::Result<std::collections::BTreeMap<String, f64>>>()?;
    let passes = errors.values().all(|error| *error <= HALF);
    Ok(Verdict { passes, figures: json!({ "dtype": dtype.as_str(), "errors": errors }) })
}
