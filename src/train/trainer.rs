//! The training loop.

use super::evaluate::label;
use super::output::Output;
use super::{AdamW, AdamWConfig, Evaluation, Gradients, History, Observer, Schedule, StepRecord, evaluate};
use crate::layers::{Mode, TrainingPass};
use crate::loss::{MultiTaskLoss, UnreadLosses};
use crate::metrics::delta_m;
use crate::model::TADFormer;
use crate::ops::GradientCheckpointing;
use crate::{Batch, Error, Result, readback};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What settles a run beside the model and the data.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// The optimizer's constants.
    pub adamw: AdamWConfig,
    /// Joint norm to which gradients are clipped.
    pub clip_norm: f64,
    /// Batches that a step goes over, one after another: their gradients' mean moves the weights, their memory is one batch's.
    /// BatchNorm sees each batch alone.
    pub accumulate: usize,
    /// Validate after this many steps, and after the last; 0 for the last alone.
    pub validate_every: usize,
    /// The seed of dropout and drop-path.
    pub seed: u64,
    /// Whether blocks keep what backward needs, or make it again to save memory.
    pub gradient_checkpointing: GradientCheckpointing,
    /// Where the best adapter is kept; its folder is made where there is none, and is one run's alone.
    pub adapter: PathBuf,
}

impl TrainConfig {
    /// The recipe's settings for so many steps at this rate: validation ten times, gradients clipped to 5.
    pub fn new(rate: f64, steps: usize, adapter: impl Into<PathBuf>) -> Self {
        Self {
            schedule: Schedule::new(rate, steps),
            adamw: AdamWConfig::default(),
            clip_norm: 5.0,
            accumulate: 1,
            validate_every: (steps / 10).max(1),
            seed: 0,
            gradient_checkpointing: GradientCheckpointing::Off,
            adapter: adapter.into(),
        }
    }

    fn check(&self, model: &TADFormer) -> Result<()> {
        self.schedule.check()?;
        if !(self.clip_norm.is_finite() && self.clip_norm > 0.0) {
            return Err(Error::config("clip_norm", "a positive number", self.clip_norm, "the recipe clips to 5"));
        }
        if self.accumulate == 0 {
            return Err(Error::config("accumulate", "at least 1", 0, "1 takes each batch as a step"));
        }
        if model.ledger().trained().is_empty() {
            let cure = "release a group, or let one that was frozen train: `TADFormer::unfreeze`";
            return Err(Error::config("model", "a weight that trains", "none", cure));
        }
        if !matches!(model.ledger().dtype(), DType::F32 | DType::F64) {
            let got = model.ledger().dtype().as_str();
            return Err(Error::config(
                "dtype",
                "f32 or f64 to train in",
                got,
                "small updates vanish in half precision",
            ));
        }
        Ok(())
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// All steps were made.
    Completed,
    /// It was asked to stop after this many steps.
    Stopped {
        /// Steps made.
        after: usize,
    },
}

/// What a run gives; the model holds the best weights then, and so does the adapter file.
#[derive(Debug)]
#[non_exhaustive]
pub struct TrainReport {
    /// Every step's figures.
    pub history: History,
    /// The validation whose weights were kept.
    pub best: Evaluation,
    /// After how many steps it was made.
    pub best_step: usize,
    /// How the run ended.
    pub ending: Ending,
}

/// Trains a model's adapters and heads.
///
/// ```no_run
/// use std::sync::Arc;
/// use tadformer::data::{BatchOptions, Batches};
/// use tadformer::scenes::Scenes;
/// use tadformer::train::{ProgressBar, TrainConfig, Trainer};
/// # fn run(model: tadformer::TADFormer) -> tadformer::Result<()> {
/// let options = BatchOptions::new(8);
/// let scenes = Arc::new(Scenes::new(0, 10_000, (96, 96))?);
/// let held_out = Arc::new(Scenes::new(1, 64, (96, 96))?);
/// let mut trainer = Trainer::new(&model, TrainConfig::new(1e-3, 1000, "adapter.safetensors"))?;
/// let validation = || Batches::once(held_out.clone(), &options);
/// trainer.run(Batches::shuffled(scenes, 0, &options)?, validation, &mut ProgressBar::new(1000))?;
/// # Ok(()) }
/// ```
///
/// The same seed, machine and thread count give the same run. Frozen tensors stay as they are, bit for bit.
#[derive(Debug)]
pub struct Trainer<'a> {
    model: &'a TADFormer,
    config: TrainConfig,
    loss: MultiTaskLoss,
    optimizer: AdamW,
    reference: BTreeMap<String, f64>,
    stop: Arc<AtomicBool>,
    /// Held until the trainer is dropped.
    _output: Output,
}

impl<'a> Trainer<'a> {
    /// Checks the settings, makes the optimizer, and makes, tries and holds the adapter's folder until it is dropped: another trainer,
    /// in this process or another, is refused it (on unix, where the file system knows locks).
    ///
    /// # Errors
    /// A setting that cannot work, or a model in half precision or of which nothing trains; a folder that cannot be made or written to,
    /// has no room for the adapter, or is another run's.
    pub fn new(model: &'a TADFormer, config: TrainConfig) -> Result<Self> {
        config.check(model)?;
        Ok(Self {
            optimizer: AdamW::new(model.ledger(), config.adamw)?,
            loss: MultiTaskLoss::new(&model.config().tasks),
            reference: BTreeMap::new(),
            stop: Arc::default(),
            _output: Output::take(&config.adapter, model)?,
            model,
            config,
        })
    }

    /// Weighs the tasks' losses otherwise than the recipe does.
    pub fn with_loss(self, loss: MultiTaskLoss) -> Self {
        Self { loss, ..self }
    }

    /// The primary metrics that validations are compared with, by task: the best is the one with the highest delta_m over them.
    /// Where none are given, the first validation's stand in.
    ///
    /// # Errors
    /// A task that the model does not have, a figure that is no number.
    pub fn with_reference(self, reference: BTreeMap<String, f64>) -> Result<Self> {
        let tasks = &self.model.config().tasks;
        for (name, figure) in &reference {
            if tasks.get(name).is_none() {
                return Err(Error::config("reference", format!("one of {tasks}"), name, "name a task of the model"));
            }
            if !figure.is_finite() {
                let cure = "leave the task out, or measure it on images that have its labels";
                return Err(Error::config(format!("reference of {name}"), "a number", figure, cure));
            }
        }
        Ok(Self { reference, ..self })
    }

    /// Ends a run early once this flag is true, which a signal's handler may set.
    ///
    /// During a step it ends after that, with a last validation, so that what was learnt since the one before is kept where it is better.
    /// During a validation it ends after the batch at hand, with the best weights so far; the first validation alone is made to its end,
    /// since nothing has been kept before it.
    pub fn with_stop_flag(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// The optimizer, to save its state or take one up.
    pub fn optimizer(&mut self) -> &mut AdamW {
        &mut self.optimizer
    }

    /// Trains on `batches`, validates on what `validation` gives each time, and keeps the best adapter. Batches are brought to the
    /// model's device and float type.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, by task and step; a batch that could not be made; a file that could not be written.
    /// The best adapter so far stays in its file.
    pub fn run<V: IntoIterator<Item = Result<Batch>>>(
        &mut self,
        batches: impl IntoIterator<Item = Result<Batch>>,
        mut validation: impl FnMut() -> Result<V>,
        observer: &mut dyn Observer,
    ) -> Result<TrainReport> {
        let names: Vec<String> = self.model.config().tasks.iter().map(|task| task.name.clone()).collect();
        let mut history = History::new(names.clone());
        let mut best: Option<(f64, usize, Evaluation)> = None;
        let mut ending = Ending::Completed;
        let (first, steps) = (self.optimizer.steps() + 1, self.config.schedule.steps);
        if first > steps {
            let cure = "a longer schedule, or another trainer";
            return Err(Error::config("steps", format!("more than the {} made", first - 1), steps, cure));
        }
        let mut batches = batches.into_iter();
        for step in first..=steps {
            let batches: Vec<Batch> = batches.by_ref().take(self.config.accumulate).collect::<Result<_>>()?;
            if batches.len() < self.config.accumulate {
                return Err(ran_out(step - 1, steps));
            }
            let record = self.step(&batches, step)?;
            observer.step(&names, &record, batches.iter().map(Batch::len).sum());
            history.push(record);
            let mut stopped = self.stopped();
            if stopped || step == steps || step.is_multiple_of(self.config.validate_every) {
                let evaluation = match &best {
                    Some(_) if !stopped => self.evaluate_unless_stopped(validation()?)?,
                    _ => Some(evaluate(self.model, validation()?)?),
                };
                if let Some(evaluation) = evaluation {
                    self.keep_best(&mut best, step, evaluation, observer)?;
                }
                stopped |= self.stopped();
            }
            if stopped {
                ending = Ending::Stopped { after: step };
                break;
            }
        }
        observer.finished(&history);
        let (_, best_step, best) = best.ok_or_else(|| ran_out(first - 1, steps))?;
        self.model.load_adapter(&self.config.adapter)?;
        Ok(TrainReport { history, best, best_step, ending })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// None where the run is asked to stop before the last batch: figures of a part compare with nothing.
    fn evaluate_unless_stopped(&self, batches: impl IntoIterator<Item = Result<Batch>>) -> Result<Option<Evaluation>> {
        let mut left_off = false;
        let batches = batches.into_iter().take_while(|_| {
            left_off = self.stopped();
            !left_off
        });
        let evaluation = evaluate(self.model, batches)?;
        Ok((!left_off).then_some(evaluation))
    }

    /// One step: forward, losses and backward of each batch; clip, move. The model's device is waited for once.
    fn step(&mut self, batches: &[Batch], step: usize) -> Result<StepRecord> {
        let (mut passes, mut gradients) = (Vec::new(), None::<Gradients>);
        for (i, batch) in batches.iter().enumerate() {
            let (pass, more) = self.backward(batch, (step - 1) * batches.len() + i + 1)?;
            passes.push(pass);
            match &mut gradients {
                Some(gradients) => gradients.add(more)?,
                None => gradients = Some(more),
            }
        }
        let Some(mut gradients) = gradients else { return Err(ran_out(step - 1, self.config.schedule.steps)) };
        let share = 1.0 / batches.len() as f64;
        if batches.len() > 1 {
            gradients.scale(share)?;
        }
        let (of_passes, square_sums) = read(&passes, &gradients)?;
        let (mut losses, mut total) = (vec![0.0; self.model.config().tasks.len()], 0.0);
        for (pass, values) in passes.iter().zip(of_passes) {
            let (of_batch, of_all) = pass.check(&values, step)?;
            losses.iter_mut().zip(of_batch).for_each(|(mean, loss)| *mean += share * loss);
            total += share * of_all;
        }
        let gradient_norm = gradients.clip_by(&square_sums, self.config.clip_norm, step)?;
        let rate = self.config.schedule.rate(step - 1);
        self.optimizer.step(&gradients, rate)?;
        Ok(StepRecord { step, rate, gradient_norm, total, losses })
    }

    /// A batch's losses, not read yet, and its gradients; `pass` tells one draw of dropout from another.
    fn backward(&self, batch: &Batch, pass: usize) -> Result<(UnreadPass, Gradients)> {
        let seed = self.config.seed.wrapping_add((pass as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rng = TrainingPass::seeded(seed);
        let ledger = self.model.ledger();
        let batch = batch.to(ledger.dtype(), ledger.device())?;
        let forward = || self.model.forward_unread(&batch.images, Mode::Train(&rng));
        let (outputs, images) = self.config.gradient_checkpointing.run(forward)?;
        let mut labelled = Vec::new();
        for (task, output) in outputs.iter() {
            labelled.push((task, output, label(&batch.labels, task)?));
        }
        let report = self.loss.forward(labelled)?;
        let gradients = Gradients::of(ledger, &report.total.backward()?);
        Ok((UnreadPass { losses: report.into_unread(), images }, gradients))
    }

    fn keep_best(
        &mut self,
        best: &mut Option<(f64, usize, Evaluation)>,
        step: usize,
        evaluation: Evaluation,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if self.reference.is_empty() {
            self.reference = evaluation.primary();
        }
        let gain = self.gain(&evaluation)?;
        let is_best = best.as_ref().is_none_or(|(so_far, ..)| gain > *so_far);
        if is_best {
            self.model.save_adapter(&self.config.adapter)?;
        }
        // Not before: an observer that panics takes nothing with it.
        observer.validated(step, &evaluation, is_best);
        if is_best {
            *best = Some((gain, step, evaluation));
        }
        Ok(())
    }

    /// Delta_m over the reference.
    fn gain(&self, evaluation: &Evaluation) -> Result<f64> {
        let pairs = evaluation.iter().filter_map(|(task, scores)| {
            let reference = *self.reference.get(&task.name)?;
            Some((scores.primary.value?, reference, scores.primary.higher_is_better))
        });
        delta_m(pairs).filter(|gain| gain.is_finite()).ok_or_else(|| {
            let cure = "validate on images with labels of a task, over a reference other than 0";
            Error::config("validation", "a figure to choose the best weights by", "none", cure)
        })
    }
}

/// What a batch's pass has to tell, on the model's device.
struct UnreadPass {
    losses: UnreadLosses,
    /// 0, or NaN where the images held one: there where the device was not waited for.
    images: Option<Tensor>,
}

impl UnreadPass {
    fn numbers(&self) -> impl Iterator<Item = &Tensor> {
        self.losses.numbers().iter().chain(&self.images)
    }

    /// Each task's loss and the weighted sum, by what was read of [`UnreadPass::numbers`].
    fn check<'a>(&self, values: &'a [f64], step: usize) -> Result<(&'a [f64], f64)> {
        let (losses, image) = values.split_at(self.losses.numbers().len());
        if image.iter().any(|zero| *zero != 0.0) {
            let cure = "look for images that are no numbers: Sample::new names the pixel".to_owned();
            return Err(Error::NonFinite { what: "a value of the images".into(), step, cure });
        }
        self.losses.check(losses, step)
    }
}

/// The numbers of all passes and the gradients' sums of squares, in one read.
fn read(passes: &[UnreadPass], gradients: &Gradients) -> Result<(Vec<Vec<f64>>, Vec<f64>)> {
    let square_sums = gradients.square_sums()?;
    let of_all = passes.iter().flat_map(UnreadPass::numbers).chain(&square_sums);
    let mut values = readback::numbers(of_all)?.into_iter();
    let of_passes = passes.iter().map(|pass| values.by_ref().take(pass.numbers().count()).collect()).collect();
    Ok((of_passes, values.collect()))
}

fn ran_out(after: usize, steps: usize) -> Error {
    Error::config("batches", format!("at least {steps}"), after, "give an endless iterator, or fewer steps")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SwinConfig;
    use crate::heads::HrNetConfig;
    use crate::ops::Definition;
    use crate::readback::reads;
    use candle_core::Device;
    use std::path::Path;

    fn model() -> Result<TADFormer> {
        let swin = SwinConfig { embed_dim: 8, depths: vec![1; 4], num_heads: vec![1, 2, 2, 4], ..SwinConfig::tiny() };
        let head = HrNetConfig::new([2, 2, 4, 4]);
        let builder = TADFormer::builder(SwinConfig { image_size: 64, window: 4, ..swin }).rank(2).head(head);
        builder.tasks("semseg=3,sal=1,normals=3".parse()?).build()
    }

    fn batch(class: f32) -> Result<Batch> {
        let map = |value: f32, c: usize| Tensor::full(value, (2, c, 64, 64), &Device::Cpu);
        let labels = [("semseg", map(class, 1)?), ("sal", map(1.0, 1)?), ("normals", map(0.5, 3)?)];
        let labels = labels.into_iter().map(|(task, map)| (task.to_owned(), map)).collect();
        Ok(Batch { images: map(0.1, 3)?, labels })
    }

    fn config(folder: &Path) -> TrainConfig {
        TrainConfig::new(1e-3, 2, folder.join("adapter.safetensors"))
    }

    /// A wait for each of three losses, two labels, their sum and some 250 weights; now one, of as many batches as a step has.
    #[test]
    fn a_step_waits_for_the_device_once() -> Result<()> {
        let (model, folder) = (model()?, tempfile::tempdir().unwrap());
        for (by, batches) in [(Definition::Composed, 1), (Definition::Fused, 1), (Definition::Fused, 3)] {
            let mut trainer = Trainer::new(&model, config(folder.path()))?;
            let batches = (0..batches).map(|i| batch(i as f32)).collect::<Result<Vec<_>>>()?;
            let (record, reads) = reads::during(|| by.run(|| trainer.step(&batches, 1)));
            let record = record?;
            assert_eq!(reads, 1, "{by:?}, {} batches", batches.len());
            let weighted: f64 = record.losses.iter().zip([1.0, 5.0, 10.0]).map(|(loss, weight)| loss * weight).sum();
            assert!((record.total - weighted).abs() < 1e-5 * weighted && record.gradient_norm > 0.0, "{record:?}");
        }
        Ok(())
    }

    /// On a device the label is looked at when its loss turns out to be NaN; nothing has moved then.
    #[test]
    fn a_label_that_is_no_class_is_named_by_either_definition_and_moves_nothing() -> Result<()> {
        let (model, folder) = (model()?, tempfile::tempdir().unwrap());
        let weights = || -> Result<Vec<Vec<f32>>> {
            let values = |entry: crate::params::Entry| Ok(entry.tensor().flatten_all()?.to_vec1()?);
            model.ledger().trained().into_iter().map(values).collect()
        };
        let before = weights()?;
        for by in Definition::ALL {
            let mut trainer = Trainer::new(&model, config(folder.path()))?;
            let batches = [batch(1.0)?, batch(3.0)?];
            let message = by.run(|| trainer.step(&batches, 1)).map(drop).unwrap_err().to_string();
            assert!(message.contains("loss of semseg") && message.contains("0 to 2 or 255, got 3"), "{message}");
        }
        assert_eq!(weights()?, before);
        Ok(())
    }

    #[test]
    fn images_on_a_device_that_are_no_numbers_stop_the_step() -> Result<()> {
        let report = MultiTaskLoss::new(&"depth=1".parse()?);
        let (task, map) = ("depth=1".parse()?, Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu)?);
        let losses = report.forward([(&task, &map, &map)])?.into_unread();
        let pass = UnreadPass { losses, images: Some(Tensor::new(f32::NAN, &Device::Cpu)?) };
        let values = readback::numbers(pass.numbers())?;
        let message = pass.check(&values, 4).map(drop).unwrap_err().to_string();
        assert!(message.contains("a value of the images") && message.contains("step 4"), "{message}");
        Ok(())
    }
}
