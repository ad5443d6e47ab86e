//! Training: repeatable, frozen weights untouched, the best kept, stops with the reason.
#![cfg(all(feature = "data", feature = "scenes", feature = "train"))]
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{builder, distance, images};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tadformer::data::{BatchOptions, Batches};
use tadformer::layers::Mode;
use tadformer::model::OpenOptions;
use tadformer::params::Role;
use tadformer::scenes::Scenes;
use tadformer::tad::{LowRank, Method};
use tadformer::train::{
    Ending, Evaluation, History, Observer, Silent, StepRecord, TrainConfig, TrainReport, Trainer, evaluate,
};
use tadformer::{Batch, TADFormer};

const SIZE: (usize, usize) = (64, 64);

fn options() -> BatchOptions {
    BatchOptions::new(2)
}

fn config(steps: usize, folder: &Path) -> TrainConfig {
    TrainConfig { validate_every: 2, ..TrainConfig::new(1e-3, steps, folder.join("adapter.safetensors")) }
}

fn held_out() -> tadformer::Result<Batches> {
    Batches::once(Arc::new(Scenes::new(9, 3, SIZE)?), &options())
}

fn train(model: &TADFormer, config: TrainConfig, observer: &mut dyn Observer) -> tadformer::Result<TrainReport> {
    let batches = Batches::shuffled(Arc::new(Scenes::new(1, 50, SIZE)?), 0, &options())?;
    Trainer::new(model, config)?.run(batches, held_out, observer)
}

#[test]
fn one_seed_gives_one_run_and_frozen_weights_stay_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let model = builder().build().unwrap();
        let frozen = |model: &TADFormer| -> Vec<Vec<f32>> {
            let entries = model.ledger().entries().into_iter().filter(|entry| matches!(entry.role, Role::Frozen(_)));
            entries.map(|entry| entry.tensor().flatten_all().unwrap().to_vec1().unwrap()).collect()
        };
        let before = frozen(&model);
        let report = train(&model, config(4, folder.path()), &mut Silent).unwrap();
        assert_eq!(frozen(&model), before);
        report.history
    };
    let (first, second) = (run(), run());
    assert_eq!(first, second);
    assert_eq!(first.steps().len(), 4);
    let seeded = TrainConfig { seed: 1, ..config(4, folder.path()) };
    let other = train(&builder().build().unwrap(), seeded, &mut Silent).unwrap();
    assert_ne!(other.history.steps()[1].total, first.steps()[1].total, "dropout follows the seed");
}

#[test]
fn losses_fall_and_the_saved_adapter_predicts_as_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let report = train(&model, config(30, folder.path()), &mut Silent).unwrap();
    let totals: Vec<f64> = report.history.steps().iter().map(|step| step.total).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&totals[20..]) < 0.9 * mean(&totals[..5]), "{totals:?}");
    let opened = TADFormer::open(folder.path().join("adapter.safetensors"), &OpenOptions::default()).unwrap();
    let images = images(1, 64, 64).unwrap();
    let (a, b) = (model.forward(&images, Mode::Eval).unwrap(), opened.forward(&images, Mode::Eval).unwrap());
    for ((_, a), (_, b)) in a.iter().zip(b.iter()) {
        assert_eq!(distance(a, b).unwrap(), 0.0);
    }
    let scores = evaluate(&opened, held_out().unwrap()).unwrap();
    assert_eq!(scores.primary(), report.best.primary());
}

/// Notes validations, and asks to stop after a step.
struct Watcher {
    best: Vec<(usize, bool)>,
    stop_after: usize,
    flag: Option<Arc<AtomicBool>>,
    finished: bool,
}

impl Observer for Watcher {
    fn step(&mut self, _: &[String], record: &StepRecord, _: usize) {
        if record.step == self.stop_after
            && let Some(flag) = &self.flag
        {
            flag.store(true, Ordering::Relaxed);
        }
    }

    fn validated(&mut self, step: usize, _: &Evaluation, best: bool) {
        self.best.push((step, best));
    }

    fn finished(&mut self, _: &History) {
        self.finished = true;
    }
}

#[test]
fn asked_to_stop_it_ends_after_the_step_and_keeps_what_was_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut trainer = Trainer::new(&model, config(100, folder.path())).unwrap().with_stop_flag(stop.clone());
    let mut watcher = Watcher { best: vec![], stop_after: 3, flag: Some(stop), finished: false };
    let batches = Batches::shuffled(Arc::new(Scenes::new(1, 50, SIZE).unwrap()), 0, &options()).unwrap();
    let report = trainer.run(batches, held_out, &mut watcher).unwrap();
    assert_eq!(report.ending, Ending::Stopped { after: 3 });
    assert_eq!(watcher.best.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [2, 3]);
    assert!(watcher.best[0].1 && watcher.finished && folder.path().join("adapter.safetensors").exists());
    let kept = watcher.best.iter().filter(|(_, best)| *best).map(|(step, _)| *step).next_back();
    assert_eq!(Some(report.best_step), kept);
}

/// It validated after every step.
#[test]
fn a_run_that_validates_every_0_steps_does_so_at_its_end_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut watcher = Watcher { best: vec![], stop_after: 0, flag: None, finished: false };
    let config = TrainConfig { validate_every: 0, ..config(3, folder.path()) };
    train(&builder().build().unwrap(), config, &mut watcher).unwrap();
    assert_eq!(watcher.best.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [3]);
}

/// A run whose stop is asked for when the validation of this number (counted from 1) has been read halfway.
fn stopped_in_validation(number: usize) -> (TrainReport, Vec<(usize, bool)>) {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut trainer = Trainer::new(&model, config(100, folder.path())).unwrap().with_stop_flag(stop.clone());
    let mut watcher = Watcher { best: vec![], stop_after: 0, flag: None, finished: false };
    let batches = Batches::shuffled(Arc::new(Scenes::new(1, 50, SIZE).unwrap()), 0, &options()).unwrap();
    let mut validations = 0;
    let validation = || {
        validations += 1;
        let (stop, last) = (stop.clone(), validations == number);
        Ok(held_out()?.inspect(move |_| {
            stop.fetch_or(last, Ordering::Relaxed);
        }))
    };
    let report = trainer.run(batches, validation, &mut watcher).unwrap();
    assert!(watcher.finished && folder.path().join("adapter.safetensors").exists());
    (report, watcher.best)
}

#[test]
fn asked_to_stop_in_a_validation_it_ends_there_with_the_best_so_far() {
    let (report, validated) = stopped_in_validation(2);
    assert_eq!((report.ending, report.best_step), (Ending::Stopped { after: 4 }, 2));
    assert_eq!(validated, [(2, true)], "figures of a part were not told");
}

#[test]
fn the_first_validation_is_made_to_its_end_and_no_step_follows() {
    let (report, validated) = stopped_in_validation(1);
    assert_eq!((report.ending, validated), (Ending::Stopped { after: 2 }, vec![(2, true)]));
    assert_eq!(report.history.steps().len(), 2);
    let whole = report.best.get("depth").unwrap().primary.value;
    assert!(whole.is_some_and(f64::is_finite));
}

/// The progress bar's terminal was gone, it panicked, and the weights that it was told of had not been saved yet.
#[test]
fn the_best_weights_are_in_their_file_before_an_observer_hears_of_them() {
    struct Fragile(std::path::PathBuf);
    impl Observer for Fragile {
        fn step(&mut self, _: &[String], _: &StepRecord, _: usize) {}
        fn validated(&mut self, _: usize, _: &Evaluation, best: bool) {
            assert!(best && TADFormer::open(&self.0, &OpenOptions::default()).is_ok());
            std::panic::panic_any("as println! does where nobody reads");
        }
        fn finished(&mut self, _: &History) {}
    }
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let path = folder.path().join("adapter.safetensors");
    let run = || train(&model, config(4, folder.path()), &mut Fragile(path.clone()));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map(drop).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"as println! does where nobody reads"));
    assert!(TADFormer::open(&path, &OpenOptions::default()).is_ok());
}

#[test]
fn a_step_over_a_batch_twice_is_a_step_over_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let run = |accumulate: usize| {
        let method = Method::default().linears(LowRank::new(2).dropout(0.0));
        let model = builder().method(method).build().unwrap();
        let batch = held_out().unwrap().next().unwrap().unwrap();
        let batches = std::iter::repeat_with(|| Ok(batch.clone())).take(2 * accumulate);
        let config = TrainConfig { accumulate, ..config(2, folder.path()) };
        let mut trainer = Trainer::new(&model, config).unwrap();
        trainer.run(batches, held_out, &mut Silent).unwrap().history
    };
    let (once, twice) = (run(1), run(2));
    for (once, twice) in once.steps().iter().zip(twice.steps()) {
        assert!((once.total - twice.total).abs() < 1e-5 * once.total, "{} is not {}", twice.total, once.total);
        assert!((once.gradient_norm - twice.gradient_norm).abs() < 1e-4 * once.gradient_norm);
    }
}

/// Batches were the data set's affair alone, and candle named two float types from deep inside.
#[test]
fn batches_of_another_float_type_are_brought_to_the_models() {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let run = |dtype: DType| {
        let model = builder().build().unwrap();
        let options = BatchOptions { dtype, ..options() };
        let batches = || Batches::once(Arc::new(Scenes::new(9, 8, SIZE).unwrap()), &options);
        Trainer::new(&model, config(3, folder.path())).unwrap().run(batches().unwrap(), batches, &mut Silent).unwrap()
    };
    let (single, double) = (run(DType::F32), run(DType::F64));
    for (single, double) in single.history.steps().iter().zip(double.history.steps()) {
        assert!((single.total - double.total).abs() < 1e-4 * single.total, "{double:?} is not {single:?}");
    }
    let bytes = one_batch(|batch| batch.images = batch.images.to_dtype(DType::U8).unwrap());
    let message = evaluate(&model, bytes).unwrap_err().to_string();
    assert!(message.contains("`images of a batch`: expected floats, normalised, got u8"), "{message}");
}

fn one_batch(change: impl Fn(&mut Batch)) -> Vec<tadformer::Result<Batch>> {
    let mut batch = held_out().unwrap().next().unwrap().unwrap();
    change(&mut batch);
    vec![Ok(batch)]
}

fn run_on(model: &TADFormer, batches: Vec<tadformer::Result<Batch>>, rate: f64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig { schedule: tadformer::train::Schedule::new(rate, 3), ..config(3, folder.path()) };
    let message = Trainer::new(model, config).unwrap().run(batches, held_out, &mut Silent).unwrap_err().to_string();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half-written");
    message
}

#[test]
fn what_is_no_number_stops_with_task_and_step() {
    let model = builder().build().unwrap();
    let message = run_on(
        &model,
        one_batch(|batch| {
            let depth = &batch.labels["depth"];
            batch.labels.insert("depth".into(), (depth * f64::NAN).unwrap());
        }),
        1e-3,
    );
    assert!(message.contains("the loss of task `depth`") && message.contains("step 1"), "{message}");
    // Nothing became NaN of these: a ReLU made 0 of the one, and a comparison of the other.
    let message = run_on(&model, one_batch(|batch| batch.images = (&batch.images * f64::NAN).unwrap()), 1e-3);
    assert!(message.contains("images: expected numbers, got NaN"), "{message}");
    let spoil = |batch: &mut Batch| {
        let edge = &batch.labels["edge"];
        batch.labels.insert("edge".into(), (edge.to_dtype(DType::F32).unwrap() * f64::NAN).unwrap());
    };
    let message = run_on(&model, one_batch(spoil), 1e-3);
    assert!(message.contains("loss of edge") && message.contains("label: expected 0, 1 or 255"), "{message}");
    let before: Vec<f32> = model.ledger().trained()[0].tensor().flatten_all().unwrap().to_vec1().unwrap();
    assert!(before.iter().all(|v| v.is_finite()));
}

#[test]
fn labels_that_are_missing_or_no_class_are_named() {
    let model = builder().build().unwrap();
    let message = run_on(&model, one_batch(|batch| drop(batch.labels.remove("sal"))), 1e-3);
    assert!(message.contains("`sal`") && message.contains("labels for depth, edge"), "{message}");
    let message = run_on(
        &model,
        one_batch(|batch| {
            let label = Tensor::full(7f32, batch.labels["semseg"].shape(), &Device::Cpu).unwrap();
            batch.labels.insert("semseg".into(), label);
        }),
        1e-3,
    );
    assert!(message.contains("0 to 6 or 255, got 7"), "{message}");
}

#[test]
fn batches_that_run_out_are_told() {
    let model = builder().build().unwrap();
    let message = run_on(&model, one_batch(|_| ()), 1e-3);
    assert!(message.contains("`batches`: expected at least 3, got 1"), "{message}");
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refuse =
        |model: &TADFormer, config: TrainConfig| Trainer::new(model, config).map(drop).unwrap_err().to_string();
    let model = builder().build().unwrap();
    assert!(refuse(&model, config(0, folder.path())).starts_with("`steps`"));
    let clip = TrainConfig { clip_norm: 0.0, ..config(2, folder.path()) };
    assert!(refuse(&model, clip).starts_with("`clip_norm`"));
    let none = TrainConfig { accumulate: 0, ..config(2, folder.path()) };
    assert!(refuse(&model, none).starts_with("`accumulate`"));
    let half = builder().dtype(DType::F16).build().unwrap();
    assert!(refuse(&half, config(2, folder.path())).contains("half precision"));
}

/// It was found out at the first validation, after hours.
#[test]
fn a_folder_that_cannot_be_written_to_is_told_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let model = builder().build().unwrap();
    let refuse = |config: TrainConfig| Trainer::new(&model, config).map(drop).unwrap_err().to_string();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let message = refuse(config(2, &file.join("run")));
    assert!(message.contains("file/run: cannot create the folder"), "{message}");
    let message = refuse(TrainConfig { adapter: folder.path().to_owned(), ..config(2, folder.path()) });
    assert!(message.contains("a folder, where the adapter is to be written"), "{message}");
    // A folder that nobody may write to, whoever he is.
    #[cfg(target_os = "linux")]
    {
        let message = refuse(config(2, Path::new("/proc/self")));
        assert!(message.contains("/proc/self: cannot write to the folder"), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "trying leaves nothing");
}

#[test]
fn a_missing_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (model, missing) = (builder().build().unwrap(), folder.path().join("runs/first"));
    train(&model, config(1, &missing), &mut Silent).unwrap();
    assert!(missing.join("adapter.safetensors").is_file());
}

/// The second run overwrote the first one's adapter in silence.
#[cfg(unix)]
#[test]
fn a_second_run_in_the_same_folder_is_refused_until_the_first_ends() {
    let (folder, model) = (tempfile::tempdir().unwrap(), builder().build().unwrap());
    let first = Trainer::new(&model, config(1, folder.path())).unwrap();
    let message = Trainer::new(&model, config(1, folder.path())).map(drop).unwrap_err().to_string();
    assert!(message.contains("another run writes to this folder (wait for its end"), "{message}");
    drop(first);
    Trainer::new(&model, config(1, folder.path())).unwrap();
}

#[test]
fn a_reference_names_tasks_and_is_of_numbers() {
    let (model, folder) = (builder().build().unwrap(), tempfile::tempdir().unwrap());
    let refuse = |name: &str, figure: f64| {
        let trainer = Trainer::new(&model, config(2, folder.path())).unwrap();
        trainer.with_reference([(name.to_owned(), figure)].into()).map(drop).unwrap_err().to_string()
    };
    assert!(refuse("rooms", 1.0).contains("one of"), "{}", refuse("rooms", 1.0));
    assert!(refuse("depth", f64::NAN).starts_with("`reference of depth`"));
}

#[test]
fn a_validation_without_a_figure_is_told_and_the_first_is_not_kept_for_it() {
    let (model, folder) = (builder().build().unwrap(), tempfile::tempdir().unwrap());
    let nothing_labelled = || {
        let mut batches = one_batch(|batch| {
            for label in batch.labels.values_mut() {
                *label = Tensor::full(255f32, label.shape(), &Device::Cpu).unwrap();
            }
        });
        Ok([batches.remove(0)])
    };
    let batches = Batches::shuffled(Arc::new(Scenes::new(1, 50, SIZE).unwrap()), 0, &options()).unwrap();
    let mut trainer = Trainer::new(&model, config(2, folder.path())).unwrap();
    let message = trainer.run(batches, nothing_labelled, &mut Silent).unwrap_err().to_string();
    assert!(message.contains("`validation`") && message.contains("labels"), "{message}");
}

#[test]
fn a_second_run_after_the_last_step_says_so() {
    let (model, folder) = (builder().build().unwrap(), tempfile::tempdir().unwrap());
    let batches = || Batches::shuffled(Arc::new(Scenes::new(1, 50, SIZE).unwrap()), 0, &options()).unwrap();
    let mut trainer = Trainer::new(&model, config(1, folder.path())).unwrap();
    trainer.run(batches(), held_out, &mut Silent).unwrap();
    let message = trainer.run(batches(), held_out, &mut Silent).unwrap_err().to_string();
    assert!(message.contains("`steps`: expected more than the 1 made"), "{message}");
}
