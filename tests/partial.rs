//! Partially labelled data: a task that an image lacks leaves loss, gradients and figures, as if the batch had held the others alone.
#![cfg(all(feature = "data", feature = "scenes", feature = "train"))]
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{TASKS, builder};
use std::sync::Arc;
use tadformer::data::{BatchOptions, Batches, Dataset};
use tadformer::loss::MultiTaskLoss;
use tadformer::metrics::Meter;
use tadformer::ops::Definition;
use tadformer::scenes::Scenes;
use tadformer::train::{Silent, TrainConfig, Trainer, evaluate};
use tadformer::{Batch, Result, Sample, Task, TaskSet};

const SIDE: usize = 64;

/// Scenes of which image i lacks the labels for which `lacks(i, place of the task)` holds.
struct Partly {
    scenes: Scenes,
    lacks: fn(usize, usize) -> bool,
}

impl Partly {
    fn new(count: usize, lacks: fn(usize, usize) -> bool) -> Self {
        Self { scenes: Scenes::new(3, count, (SIDE, SIDE)).unwrap(), lacks }
    }
}

impl Dataset for Partly {
    fn len(&self) -> usize {
        self.scenes.len()
    }

    fn tasks(&self) -> &TaskSet {
        self.scenes.tasks()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let mut sample = self.scenes.get(index)?;
        for (place, task) in self.tasks().iter().enumerate() {
            if (self.lacks)(index, place) {
                sample.labels.remove(task.name());
            }
        }
        Ok(sample)
    }
}

fn batch(dataset: Partly) -> Batch {
    Batches::once(Arc::new(dataset), &BatchOptions::new(4)).unwrap().next().unwrap().unwrap()
}

/// What a model might say of four images.
fn outputs(task: &Task) -> Tensor {
    let count = 4 * task.outputs() * SIDE * SIDE;
    let values = (0..count).map(|i| ((i * 37 % 101) as f64 / 25.0 - 2.0) * (i as f64 * 0.01).cos());
    Tensor::from_iter(values, &Device::Cpu).unwrap().reshape((4, task.outputs(), SIDE, SIDE)).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The loss, and its gradient by the outputs.
fn loss(task: &Task, outputs: &Tensor, label: &Tensor) -> (f64, Vec<f64>) {
    let outputs = Var::from_tensor(outputs).unwrap();
    let tasks = TaskSet::new(vec![task.clone()]).unwrap();
    let report = MultiTaskLoss::new(&tasks).forward([(task, outputs.as_tensor(), label)]).unwrap();
    let gradient = report.total.backward().unwrap().get(&outputs).map(flat).unwrap();
    (report.values().unwrap()[0], gradient)
}

#[test]
fn an_image_that_lacks_a_task_counts_as_if_the_batch_held_the_others_alone() {
    // Each task is lacking in one image or two, and no two images lack the same ones.
    let lacks = |image: usize, place: usize| image == place % 4 || (place == 3 && image == 0);
    let batch = batch(Partly::new(4, lacks));
    for (place, task) in batch_tasks().iter().enumerate() {
        let label = &batch.labels[task.name()];
        let others: Vec<u32> = (0..4).filter(|image| !lacks(*image as usize, place)).collect();
        let others = Tensor::new(others, &Device::Cpu).unwrap();
        let (all, some) = (outputs(task), outputs(task).index_select(&others, 0).unwrap());
        let some_labels = label.index_select(&others, 0).unwrap();
        for by in Definition::ALL {
            let (value, gradient) = by.run(|| loss(task, &all, label));
            let (alone, wanted) = by.run(|| loss(task, &some, &some_labels));
            assert!(alone > 0.0 && (value - alone).abs() < 1e-12 * alone, "{task}: {value} is not {alone}");
            let gradient = Tensor::new(gradient, &Device::Cpu).unwrap().reshape(all.dims()).unwrap();
            let of_others = flat(&gradient.index_select(&others, 0).unwrap());
            assert!(of_others.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-15), "{task}");
            assert!(wanted.iter().any(|g| g.abs() > 1e-6), "{task}");
            for image in (0..4).filter(|image| lacks(*image, place)) {
                assert!(flat(&gradient.get(image).unwrap()).iter().all(|g| *g == 0.0), "{task}");
            }
        }
        let scores = |outputs: &Tensor, label: &Tensor| {
            let mut meter = Meter::new(task);
            meter.update(&outputs.to_dtype(DType::F32).unwrap(), label).unwrap();
            meter.scores().primary.value
        };
        let (value, alone) = (scores(&all, label), scores(&some, &some_labels));
        assert!(alone.is_some() && value == alone, "{task}: {value:?} is not {alone:?}");
    }
}

fn batch_tasks() -> TaskSet {
    TASKS.parse().unwrap()
}

#[test]
fn a_task_that_the_whole_batch_lacks_costs_nothing_and_moves_nothing() {
    let batch = batch(Partly::new(4, |_, _| true));
    for task in &batch_tasks() {
        let label = &batch.labels[task.name()];
        for by in Definition::ALL {
            let (value, gradient) = by.run(|| loss(task, &outputs(task), label));
            assert_eq!(value, 0.0, "{task}");
            assert!(gradient.iter().all(|g| *g == 0.0), "{task}");
        }
        let mut meter = Meter::new(task);
        meter.update(&outputs(task).to_dtype(DType::F32).unwrap(), label).unwrap();
        assert_eq!(meter.scores().primary.value, None, "{task}: there is no figure of nothing");
    }
}

/// Tasks that no image of some batches, of the whole training, or of the validation has.
#[test]
fn a_training_goes_on_where_tasks_are_lacking() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build()?;
    // Place 0 is labelled nowhere, 1 in every third image, and the rest everywhere.
    let lacks = |image: usize, place: usize| place == 0 || (place == 1 && !image.is_multiple_of(3));
    let options = BatchOptions::new(1);
    let batches = Batches::shuffled(Arc::new(Partly::new(6, lacks)), 0, &options)?;
    let held_out = || Batches::once(Arc::new(Partly::new(2, |_, place| place == 0)), &options);
    let config = TrainConfig::new(1e-3, 6, folder.path().join("adapter.safetensors"));
    let report = Trainer::new(&model, config)?.run(batches, held_out, &mut Silent)?;
    for record in report.history.steps() {
        assert!(record.total.is_finite() && record.total > 0.0, "{record:?}");
        assert_eq!(record.losses[0], 0.0, "{record:?}");
    }
    let of_parts =
        |nothing: bool| report.history.steps().iter().filter(|record| (record.losses[1] == 0.0) == nothing).count();
    assert!(of_parts(true) >= 4 && of_parts(false) >= 1);
    for entry in model.ledger().trained() {
        assert!(flat(entry.tensor()).iter().all(|v| v.is_finite()), "{}", entry.name);
    }
    let scores = evaluate(&model, held_out()?)?;
    assert_eq!(scores.get("semseg").unwrap().primary.value, None);
    assert!(scores.get("depth").unwrap().primary.value.is_some());
    Ok(())
}
