//! Where frozen weights come from: a checkpoint, a draw at random, or shapes without values.

use super::{Ledger, Role, initial};
use crate::checkpoint::Checkpoint;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use std::collections::HashMap;
use std::sync::Arc;

/// A source that draws every weight from its initial distribution, the same for the same seed.
pub fn random_source(seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Random { seed }), dtype, device.clone())
}

/// A source whose tensors have shapes and no memory, to count a model's parameters without making them.
pub fn shape_source(dtype: DType) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(ShapesAlone), dtype, Device::Cpu)
}

/// A source that gives a model's frozen tensors as they are, shared and not copied.
///
/// What that model trains or could train, and what it has in another shape, comes as a zero without memory.
pub fn frozen_source(ledger: &Ledger) -> VarBuilder<'static> {
    let frozen = |entry: super::Entry| match entry.role {
        Role::Frozen(tensor) => Some((entry.name, tensor)),
        _ => None,
    };
    of_tensors(ledger, ledger.entries().into_iter().filter_map(frozen).collect())
}

/// A source that gives all of a model's weights as they are: what trains as its own variables.
pub(crate) fn own_source(ledger: &Ledger) -> VarBuilder<'static> {
    of_tensors(ledger, ledger.entries().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect())
}

fn of_tensors(ledger: &Ledger, tensors: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Tensors(tensors)), ledger.dtype(), ledger.device().clone())
}

struct Tensors(HashMap<String, Tensor>);

impl SimpleBackend for Tensors {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.0.get(name).filter(|tensor| *tensor.shape() == shape) {
            Some(tensor) => Ok(tensor.clone()),
            None => Tensor::zeros((), dtype, device)?.broadcast_as(shape),
        }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        let missing = || candle_core::Error::Msg(format!("{name}: no frozen weight")).bt();
        self.0.get(name).cloned().ok_or_else(missing)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

struct Random {
    seed: u64,
}

impl SimpleBackend for Random {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        initial::tensor(initial::draw(self.seed, name, None, &shape, init)?, &shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a random weight needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}

struct ShapesAlone;

impl SimpleBackend for ShapesAlone {
    fn get(&self, shape: Shape, _: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::zeros((), dtype, device)?.broadcast_as(shape)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: a weight without values needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        false
    }
}
/// A source of frozen weights that reads a checkpoint.
///
/// What is missing or misshapen comes as a zero without memory; a load report names all of it at once.
pub fn checkpoint_source(checkpoint: Arc<Checkpoint>, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(CheckpointSource(checkpoint)), dtype, device.clone())
}

pub(crate) struct CheckpointSource(Arc<Checkpoint>);

impl SimpleBackend for CheckpointSource {
    fn get(
        &self,
        shape: candle_core::Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        if self.0.shape(name).as_deref() == Some(shape.dims()) {
            self.0.load(name, dtype, device).map_err(candle_core::Error::wrap)
        } else {
            Tensor::zeros((), dtype, device)?.broadcast_as(shape)
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.load(name, dtype, device).map_err(candle_core::Error::wrap)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.shape(name).is_some()
    }
}
