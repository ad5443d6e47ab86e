//! A model small enough to be computed in f64, the same on every device.

use crate::compare::Named;
use tadformer::candle_core::{DType, Device, Tensor};
use tadformer::heads::HrNetConfig;
use tadformer::layers::{Mode, TrainingPass};
use tadformer::ops::Definition;
use tadformer::tad::{LowRank, Method};
use tadformer::{Outputs, SwinConfig, TADFormer};

/// What is dropped in training.
#[derive(Clone, Copy)]
pub struct Rates {
    pub dropout: f64,
    pub drop_path: f64,
}

impl Rates {
    pub const NONE: Self = Self { dropout: 0.0, drop_path: 0.0 };
}

/// Where a model computes, in which float type and by which definition of its steps.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub device: &'a Device,
    pub dtype: DType,
    pub definition: Definition,
}

impl<'a> Place<'a> {
    /// As programs compute on this device.
    pub fn on(device: &'a Device) -> Self {
        Self { device, dtype: DType::F32, definition: Definition::Fused }
    }

    /// What a device is held against.
    pub fn reference(dtype: DType) -> Self {
        Self { device: &Device::Cpu, dtype, definition: Definition::Composed }
    }
}

/// Four tasks of every kind of loss, 8 to 64 channels, for images of 64; its seed settles every weight.
pub fn model(at: Place, rates: Rates) -> tadformer::Result<TADFormer> {
    let swin = SwinConfig {
        image_size: 64,
        embed_dim: 8,
        depths: vec![1, 2, 1, 1],
        num_heads: vec![1, 2, 2, 4],
        window: 4,
        drop_path: rates.drop_path,
        ..SwinConfig::tiny()
    };
    let method = Method::default().linears(LowRank::new(2).dropout(rates.dropout));
    let builder = TADFormer::builder(swin).method(method).tasks("semseg=7,sal=1,normals=3,depth=1".parse()?);
    let model = builder.head(HrNetConfig::new([2, 2, 4, 4])).seed(3).dtype(at.dtype).device(at.device).build()?;
    open_paths(&model)?;
    Ok(model)
}

/// A fresh B is zero, and hides whatever depends on it.
fn open_paths(model: &TADFormer) -> tadformer::Result<()> {
    for entry in model.ledger().trained() {
        if let (true, Some(var)) = (entry.name.ends_with("low_rank.b"), entry.trained()) {
            let wave = wave(var.elem_count(), 1.0)?.reshape(var.shape())?;
            var.set(&(wave * 0.1)?.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
    }
    Ok(())
}

/// `sin(frequency i)`, on the CPU.
pub fn wave(count: usize, frequency: f64) -> tadformer::candle_core::Result<Tensor> {
    Tensor::from_iter((0..count).map(|i| (frequency * i as f64).sin() as f32), &Device::Cpu)
}

/// Images that differ from pixel to pixel; another `frequency` gives others.
pub fn images(at: Place, batch: usize, frequency: f64) -> tadformer::candle_core::Result<Tensor> {
    wave(batch * 3 * 64 * 64, frequency)?.reshape((batch, 3, 64, 64))?.to_device(at.device)?.to_dtype(at.dtype)
}

/// The outputs by task.
pub fn by_task(outputs: &Outputs) -> Named {
    outputs.iter().map(|(task, output)| (task.name().to_owned(), output.clone())).collect()
}

/// Outputs of a training pass, and the gradients of the sum over tasks of the mean of their squares.
pub fn outputs_and_gradients(at: Place, rates: Rates) -> anyhow::Result<(Named, Named)> {
    at.definition.run(|| {
        let model = model(at, rates)?;
        let outputs = model.forward(&images(at, 2, 0.37)?, Mode::Train(&TrainingPass::seeded(11)))?;
        let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all());
        let losses = losses.collect::<tadformer::candle_core::Result<Vec<_>>>()?;
        let store = Tensor::stack(&losses, 0)?.sum_all()?.backward()?;
        let gradient = |entry: tadformer::params::Entry| Some((entry.name.clone(), store.get(entry.tensor())?.clone()));
        Ok((by_task(&outputs), model.ledger().trained().into_iter().filter_map(gradient).collect()))
    })
}
