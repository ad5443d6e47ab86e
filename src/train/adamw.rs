//! AdamW with decay and no-decay groups, and a state that can be saved.

use super::Gradients;
use crate::checkpoint::Checkpoint;
use crate::files::write_tensors;
use crate::ops;
use crate::ops::{AdamWStep, Moments};
use crate::params::{Entry, Group, Ledger, Pretrained};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// AdamW's constants, with the released recipe's values as defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, for weights that decay.
    pub weight_decay: f64,
}

impl AdamWConfig {
    fn check(&self) -> Result<()> {
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(field, "from 0 up to, not including, 1", beta, "0.9 and 0.999 are usual"));
            }
        }
        for (field, value) in [("eps", self.eps), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(field, "a number of 0 or more", value, "1e-8 and 0.05 are usual"));
            }
        }
        Ok(())
    }
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 }
    }
}

/// AdamW, as PyTorch computes it: `m = β1 m + (1-β1) g`, `v = β2 v + (1-β2) g²`, `w = w (1 - lr λ) - lr m̂ / (sqrt(v̂) + eps)`.
///
/// 1-D weights, biases and position bias tables do not decay. candle-nn's AdamW knows one decay for all and keeps its state to itself.
///
/// ```
/// use candle_core::{DType, Device};
/// use tadformer::params::{Group, Ledger};
/// use tadformer::train::{AdamW, AdamWConfig, Gradients};
/// let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
/// let w = ledger.builder(Group::Heads).get((2, 3), "w")?;
/// let mut optimizer = AdamW::new(&ledger, AdamWConfig::default())?;
/// let loss = || (&w - 1.0)?.sqr()?.sum_all();
/// let before = loss()?.to_scalar::<f32>()?;
/// optimizer.step(&Gradients::of(&ledger, &loss()?.backward()?), 0.01)?;
/// assert!(loss()?.to_scalar::<f32>()? < before);
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    slots: Vec<Slot>,
    config: AdamWConfig,
    steps: usize,
}

#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    moments: Moments,
    decays: bool,
}

impl AdamW {
    /// For every trained weight of a ledger.
    ///
    /// # Errors
    /// A setting that cannot work.
    pub fn new(ledger: &Ledger, config: AdamWConfig) -> Result<Self> {
        config.check()?;
        let slot = |entry: Entry| -> Option<Result<Slot>> {
            let var = entry.trained()?.clone();
            let zeros = || Var::zeros(var.shape(), var.dtype(), var.device());
            let moments = || Ok(Moments { first: zeros()?, second: zeros()? });
            let decays = decays(&entry);
            Some(moments().map(|moments| Slot { name: entry.name.clone(), var, moments, decays }))
        };
        Ok(Self { slots: ledger.trained().into_iter().filter_map(slot).collect::<Result<_>>()?, config, steps: 0 })
    }

    /// Moves every weight that has a gradient, at this learning rate.
    ///
    /// # Errors
    /// A gradient of another shape or float type than its weight.
    pub fn step(&mut self, grads: &Gradients, rate: f64) -> Result<()> {
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let (correct1, correct2) = (1.0 - beta1.powi(steps), 1.0 - beta2.powi(steps));
        let by = AdamWStep { beta1, beta2, eps, unbias: 1.0 / correct2, rate: rate / correct1, shrink: 1.0 };
        // By name: of a model of which a part was frozen meanwhile there are fewer.
        let grads = grads.by_name();
        for slot in &self.slots {
            let Some(grad) = grads.get(slot.name.as_str()) else { continue };
            let shrink = if slot.decays { 1.0 - rate * weight_decay } else { 1.0 };
            ops::adamw_step(&slot.var, grad, &slot.moments, AdamWStep { shrink, ..by })?;
        }
        Ok(())
    }

    /// How many steps it has taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Writes moments and step count; the weights they belong to are the model's, which an adapter file keeps.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = vec![("steps".to_owned(), Tensor::new(self.steps as i64, &Device::Cpu)?)];
        for slot in &self.slots {
            for (moment, tensor) in [("first", &slot.moments.first), ("second", &slot.moments.second)] {
                tensors.push((format!("{moment}.{}", slot.name), tensor.as_detached_tensor()));
            }
        }
        write_tensors(path, tensors, None)
    }

    /// Takes up a state that [`AdamW::save`] wrote for the same weights.
    ///
    /// # Errors
    /// A file that cannot be read or holds the state of other weights; the optimizer is unchanged then.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let state = Checkpoint::open(path)?;
        let moment = |moment: &str, slot: &Slot| -> Result<Var> {
            let name = format!("{moment}.{}", slot.name);
            match state.shape(&name) {
                Some(shape) if shape == slot.var.dims() => {
                    Ok(Var::from_tensor(&state.load(&name, slot.var.dtype(), slot.var.device())?)?)
                }
                _ => Err(Error::file(path, format!("no `{name}` of this shape"), "take the state of the same model")),
            }
        };
        let steps = state.load("steps", DType::I64, &Device::Cpu)?.to_scalar::<i64>()?;
        let steps =
            usize::try_from(steps).map_err(|_| Error::file(path, "a negative step count", "take another copy"))?;
        let moments = |slot| Ok(Moments { first: moment("first", slot)?, second: moment("second", slot)? });
        let moments = self.slots.iter().map(moments).collect::<Result<Vec<_>>>()?;
        for (slot, moments) in self.slots.iter_mut().zip(moments) {
            slot.moments = moments;
        }
        self.steps = steps;
        Ok(())
    }
}

/// The released code decays position bias tables by oversight; here they do not, as intended.
fn decays(entry: &Entry) -> bool {
    entry.tensor().rank() > 1 && entry.group != Group::Pretrained(Pretrained::PositionBias)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quadratic() -> Result<(Ledger, Tensor, Tensor)> {
        let ledger = Ledger::seeded(0, DType::F64, &Device::Cpu);
        let vb = ledger.builder(Group::Heads);
        let (w, b) =
            (vb.get_with_hints((1, 2), "w", candle_nn::init::ONE)?, vb.get_with_hints(1, "b", candle_nn::init::ONE)?);
        Ok((ledger, w, b))
    }

    fn train(ledger: &Ledger, w: &Tensor, b: &Tensor, optimizer: &mut AdamW, steps: usize) -> Result<()> {
        for _ in 0..steps {
            let target = Tensor::new(&[[0.5f64, -1.0]], &Device::Cpu)?;
            let loss = (((w - target)?.sqr()?.sum_all()? * 0.5)? + b.sqr()?.sum_all()?)?;
            optimizer.step(&Gradients::of(ledger, &loss.backward()?), 0.1)?;
        }
        Ok(())
    }

    #[test]
    fn two_steps_as_pytorch_makes_them() -> Result<()> {
        let (ledger, w, b) = quadratic()?;
        let mut optimizer = AdamW::new(&ledger, AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() })?;
        train(&ledger, &w, &b, &mut optimizer, 1)?;
        // The first step moves by the rate against the gradient's sign; w decays by 1 - 0.1 * 0.5 before, b does not.
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<f64>();
        assert!(values(&w)?.iter().all(|v| (v - 0.85).abs() < 1e-7));
        assert!((values(&b)?[0] - 0.9).abs() < 1e-7);
        train(&ledger, &w, &b, &mut optimizer, 1)?;
        let (m, v) = (0.9 * 0.1 * 2.0 + 0.1 * 1.8, 0.999 * 0.001 * 4.0 + 0.001 * 3.24);
        let want = 0.9 - 0.1 * (m / 0.19) / ((v / (1.0 - 0.999f64.powi(2))).sqrt() + 1e-8);
        assert!((values(&b)?[0] - want).abs() < 1e-7);
        Ok(())
    }

    #[test]
    fn a_saved_state_goes_on_as_if_it_had_not_stopped() -> Result<()> {
        let (ledger, w, b) = quadratic()?;
        let mut optimizer = AdamW::new(&ledger, AdamWConfig::default())?;
        train(&ledger, &w, &b, &mut optimizer, 5)?;
        let path = tempfile::tempdir().unwrap().keep().join("state.safetensors");
        optimizer.save(&path)?;
        let weights: Vec<Tensor> =
            ledger.trained().iter().map(|e| e.tensor().copy()).collect::<candle_core::Result<_>>()?;
        train(&ledger, &w, &b, &mut optimizer, 3)?;
        let want = w.to_vec2::<f64>()?;
        for (entry, value) in ledger.trained().iter().zip(&weights) {
            entry.trained().unwrap().set(value)?;
        }
        let mut resumed = AdamW::new(&ledger, AdamWConfig::default())?;
        resumed.load(&path)?;
        assert_eq!(resumed.steps(), 5);
        train(&ledger, &w, &b, &mut resumed, 3)?;
        assert_eq!(w.to_vec2::<f64>()?, want);
        let (other, ..) = quadratic()?;
        other.builder(Group::Heads).get(4, "more")?;
        let message = AdamW::new(&other, AdamWConfig::default())?.load(&path).unwrap_err().to_string();
        assert!(message.contains("first.more"), "{message}");
        Ok(())
    }

    #[test]
    fn each_setting_that_cannot_work_is_named() -> Result<()> {
        let (ledger, ..) = quadratic()?;
        let usual = AdamWConfig::default();
        for (field, config) in [
            ("beta1", AdamWConfig { beta1: 1.0, ..usual }),
            ("beta2", AdamWConfig { beta2: -0.1, ..usual }),
            ("eps", AdamWConfig { eps: f64::NAN, ..usual }),
            ("weight_decay", AdamWConfig { weight_decay: -1.0, ..usual }),
        ] {
            let message = AdamW::new(&ledger, config).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}`")), "{message}");
        }
        Ok(())
    }

    #[test]
    fn vectors_and_position_biases_do_not_decay() -> Result<()> {
        let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
        ledger.builder(Group::Pretrained(Pretrained::PositionBias)).get((9, 2), "table")?;
        ledger.builder(Group::Prompts).get((4, 2), "prompts")?;
        ledger.builder(Group::Heads).get(4, "bias")?;
        assert_eq!(ledger.trained().iter().map(decays).collect::<Vec<_>>(), [false, true, false]);
        Ok(())
    }
}
