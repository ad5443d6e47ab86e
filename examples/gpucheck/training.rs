//! Steps of the optimizer, and of training.

use crate::checks::Verdict;
use crate::compare::{Named, errors, worst};
use crate::tiny::{Place, Rates, model, wave};
use serde_json::json;
use std::sync::Arc;
use tadformer::candle_core::{DType, Device, Tensor};
use tadformer::data::{BatchOptions, Batches};
use tadformer::scenes::Scenes;
use tadformer::train::{AdamW, AdamWConfig, Gradients, Silent, TrainConfig, Trainer};

/// What rounding may leave of three steps.
const WEIGHTS: f64 = 1e-6;

/// Losses of the first step differ by rounding; later ones drift apart, and stay about as low.
const FIRST_LOSS: f64 = 1e-4;
const LAST_LOSSES: f64 = 0.05;

/// Weights after three steps whose gradients are the same everywhere: those of the sum of each weight times a wave.
pub fn adamw(on: &Device) -> anyhow::Result<Verdict> {
    let here = after_three_steps(Place::on(on))?;
    let single = after_three_steps(Place::reference(DType::F32))?;
    let double = after_three_steps(Place::reference(DType::F64))?;
    let errors = errors(&here, &single, &double)?;
    let passes = errors.iter().all(|error| error.passes(WEIGHTS));
    Ok(Verdict { passes, figures: json!({ "weights": errors.len(), "worst": worst(&errors) }) })
}

fn after_three_steps(at: Place) -> anyhow::Result<Named> {
    at.definition.run(|| {
        let model = model(at, Rates::NONE)?;
        let ledger = model.ledger();
        let mut optimizer = AdamW::new(ledger, AdamWConfig::default())?;
        for step in 1..=3 {
            let sums = ledger.trained().into_iter().map(|entry| {
                let weight = entry.tensor();
                let wave = wave(weight.elem_count(), 0.7 * f64::from(step))?.reshape(weight.shape())?;
                (weight * wave.to_device(at.device)?.to_dtype(at.dtype)?)?.sum_all()
            });
            let sums = sums.collect::<tadformer::candle_core::Result<Vec<_>>>()?;
            let store = Tensor::stack(&sums, 0)?.sum_all()?.backward()?;
            let mut gradients = Gradients::of(ledger, &store);
            gradients.clip(5.0, 1)?;
            optimizer.step(&gradients, 1e-2)?;
        }
        Ok(ledger.trained().into_iter().map(|entry| (entry.name.clone(), entry.tensor().detach())).collect())
    })
}

/// Twenty steps on scenes of 96 pixels, with dropout and drop-path.
pub fn trainer(on: &Device) -> anyhow::Result<Verdict> {
    let (here, cpu) = (losses(Place::on(on))?, losses(Place::reference(DType::F32))?);
    let differences: Vec<f64> = here.iter().zip(&cpu).map(|(a, b)| (a - b).abs() / b.abs()).collect();
    let mean = |losses: &[f64]| losses[losses.len() - 5..].iter().sum::<f64>() / 5.0;
    let of_the_last = (mean(&here) - mean(&cpu)).abs() / mean(&cpu);
    let passes = differences[0] <= FIRST_LOSS && of_the_last <= LAST_LOSSES && mean(&here) < here[0];
    let figures = json!({
        "losses": here, "cpu_f32": cpu, "first": differences[0], "worst": differences.iter().copied().fold(0.0, f64::max),
        "last_five": of_the_last,
    });
    Ok(Verdict { passes, figures })
}

fn losses(at: Place) -> anyhow::Result<Vec<f64>> {
    const STEPS: usize = 20;
    at.definition.run(|| {
        let model = model(at, Rates { dropout: 0.05, drop_path: 0.1 })?;
        let (scenes, held_out) = (Arc::new(Scenes::new(1, 80, (96, 96))?), Arc::new(Scenes::new(2, 4, (96, 96))?));
        let folder = tempfile::tempdir()?;
        let config = TrainConfig::new(3e-3, STEPS, folder.path().join("adapter.safetensors"));
        let mut trainer = Trainer::new(&model, TrainConfig { validate_every: STEPS, ..config })?;
        // On the CPU: the trainer brings them to the model's device.
        let options = BatchOptions::new(4);
        let validation = || Batches::once(held_out.clone(), &options);
        let report = trainer.run(Batches::shuffled(scenes, 0, &options)?, validation, &mut Silent)?;
        Ok(report.history.steps().iter().map(|step| step.total).collect())
    })
}
