//! The gradients of one step: collected by the ledger, checked, clipped.

use crate::ops;
use crate::params::{Entry, Ledger};
use crate::{Error, Result, readback};
use candle_core::{Tensor, backprop::GradStore};
use std::collections::HashMap;

/// The gradient of each trained weight that has one, in the ledger's order.
pub struct Gradients {
    grads: Vec<Option<Tensor>>,
    names: Vec<String>,
}

impl Gradients {
    /// Takes the trained weights' gradients out of a backward pass.
    pub fn of(ledger: &Ledger, store: &GradStore) -> Self {
        let trained = ledger.trained();
        // Candle's gradients remember how they were made, and with it every activation of the step.
        let grad = |entry: &Entry| store.get(entry.tensor()).map(Tensor::detach);
        Self { grads: trained.iter().map(grad).collect(), names: trained.into_iter().map(|entry| entry.name).collect() }
    }

    /// Adds another batch's, for a step over several; both of the same ledger.
    ///
    /// # Errors
    /// A gradient of another shape: the batches are not of one ledger.
    pub fn add(&mut self, other: Self) -> Result<()> {
        for (sum, grad) in self.grads.iter_mut().zip(other.grads) {
            *sum = match (sum.take(), grad) {
                (Some(sum), Some(grad)) => Some((sum + grad)?),
                (one, other) => one.or(other),
            };
        }
        Ok(())
    }

    /// Multiplies all of them.
    ///
    /// # Errors
    /// A device without room for the result.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for grad in self.grads.iter_mut().flatten() {
            *grad = (&*grad * factor)?;
        }
        Ok(())
    }

    /// One for each trained weight; `None` for a weight that the loss does not depend on.
    pub fn iter(&self) -> impl Iterator<Item = Option<&Tensor>> {
        self.grads.iter().map(Option::as_ref)
    }

    /// Those that there are, by their weights' names.
    pub(super) fn by_name(&self) -> HashMap<&str, &Tensor> {
        let named = self.names.iter().zip(&self.grads);
        named.filter_map(|(name, grad)| Some((name.as_str(), grad.as_ref()?))).collect()
    }

    /// Scales all of them so that their joint Euclidean norm is at most `limit`, and gives the norm they had.
    ///
    /// The device is read once, for all weights together.
    ///
    /// # Errors
    /// A gradient that is infinite or no number, by the weight's name.
    pub fn clip(&mut self, limit: f64, step: usize) -> Result<f64> {
        let squares = readback::numbers(&self.square_sums()?)?;
        self.clip_by(&squares, limit, step)
    }

    /// The sum of squares of each gradient that is there, to be read.
    pub(super) fn square_sums(&self) -> Result<Vec<Tensor>> {
        Ok(self.grads.iter().flatten().map(ops::square_sum).collect::<candle_core::Result<_>>()?)
    }

    /// [`Gradients::clip`] by what was read of [`Gradients::square_sums`].
    pub(super) fn clip_by(&mut self, square_sums: &[f64], limit: f64, step: usize) -> Result<f64> {
        let names = self.grads.iter().zip(&self.names).filter_map(|(grad, name)| grad.as_ref().map(|_| name));
        if let Some((_, name)) = square_sums.iter().zip(names).find(|(square, _)| !square.is_finite()) {
            let what = format!("the gradient of `{name}`");
            return Err(Error::NonFinite { what, step, cure: "lower the learning rate".into() });
        }
        let norm = square_sums.iter().sum::<f64>().sqrt();
        if norm > limit {
            self.scale(limit / norm)?;
        }
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Group;
    use candle_core::{DType, Device};

    fn ledger_and_loss(values: &[f32]) -> Result<(Ledger, GradStore)> {
        let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
        let vb = ledger.builder(Group::Heads);
        let (w, _unused) = (vb.get(values.len(), "w")?, vb.get(1, "unused")?);
        let store = (w * Tensor::new(values, &Device::Cpu)?)?.sum_all()?.backward()?;
        Ok((ledger, store))
    }

    #[test]
    fn clipping_scales_to_the_limit_and_leaves_small_gradients() -> Result<()> {
        let (ledger, store) = ledger_and_loss(&[3.0, 4.0])?;
        for (limit, want) in [(1.0, [0.6, 0.8]), (10.0, [3.0, 4.0])] {
            let mut grads = Gradients::of(&ledger, &store);
            assert_eq!(grads.clip(limit, 1)?, 5.0);
            let all: Vec<_> = grads.iter().collect();
            assert!(all[1].is_none());
            let got = all[0].unwrap().to_vec1::<f32>()?;
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        }
        Ok(())
    }

    #[test]
    fn batches_add_up_weight_by_weight() -> Result<()> {
        let (ledger, store) = ledger_and_loss(&[3.0, 4.0])?;
        let mut grads = Gradients::of(&ledger, &store);
        grads.add(Gradients::of(&ledger, &store))?;
        grads.scale(0.25)?;
        let all: Vec<_> = grads.iter().collect();
        assert_eq!(all[0].unwrap().to_vec1::<f32>()?, [1.5, 2.0]);
        assert!(all[1].is_none(), "a weight that no batch reaches");
        Ok(())
    }

    #[test]
    fn a_gradient_that_is_no_number_stops_by_name_and_step() -> Result<()> {
        let (ledger, store) = ledger_and_loss(&[1.0, f32::NAN])?;
        let message = Gradients::of(&ledger, &store).clip(1.0, 7).unwrap_err().to_string();
        assert!(message.contains("`w`") && message.contains("step 7"), "{message}");
        Ok(())
    }

    /// A wait for the device a weight: 286 of them a step.
    #[test]
    fn all_weights_are_read_together() -> Result<()> {
        let ledger = Ledger::seeded(0, DType::F32, &Device::Cpu);
        let vb = ledger.builder(Group::Heads);
        let weights = ["a", "b", "c"].map(|name| vb.get(2, name).and_then(|w| w.sum_all()));
        let [a, b, c] = weights;
        let store = ((a? + b?)? + c?)?.backward()?;
        let mut grads = Gradients::of(&ledger, &store);
        let (norm, reads) = readback::reads::during(|| grads.clip(1.0, 1));
        assert_eq!((norm?, reads), (6f64.sqrt(), 1));
        Ok(())
    }
}
