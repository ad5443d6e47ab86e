//! What is trained and validated on: a data set from disk, or rendered scenes.

use crate::options::Options;
use anyhow::ensure;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use tadformer::data::{
    BatchOptions, Batches, Dataset, Layout, Skipped, Transformed, Transforms, open_dataset, open_dataset_with,
};
use tadformer::scenes::Scenes;
use tadformer::{Batch, Result, TaskSet};

/// Training and validation, of one size.
pub struct Data {
    /// As training draws them.
    pub train: Arc<dyn Dataset>,
    /// The same as validation would see them, from which a constant prediction is learnt.
    plain: Arc<dyn Dataset>,
    pub validation: Arc<dyn Dataset>,
    /// What the model learns.
    pub tasks: TaskSet,
    /// Batches of a validation at most.
    most: usize,
    options: BatchOptions,
    seed: u64,
    /// Of the last validation.
    left_out: RefCell<Skipped>,
}

impl Data {
    /// What the options ask for.
    pub fn of(options: &Options, batches: BatchOptions) -> anyhow::Result<Self> {
        let names: Option<Vec<&str>> = options.tasks.as_ref().map(|tasks| tasks.split(',').map(name_of).collect());
        let (train, plain, validation) = match &options.data {
            Some(root) => from_disk(root, options, names.as_deref())?,
            None => scenes(options)?,
        };
        let tasks = match &names {
            Some(names) => train.tasks().only(names)?,
            None => train.tasks().clone(),
        };
        check_outputs(options.tasks.as_deref().unwrap_or_default(), &tasks)?;
        let most = options.validation.map_or(usize::MAX, |images| images.div_ceil(options.batch.max(1)));
        let (seed, left_out) = (options.seed, RefCell::default());
        Ok(Self { train, plain, validation, tasks, most, options: batches, seed, left_out })
    }

    /// Training's batches, without end.
    pub fn training(&self) -> Result<Batches> {
        Batches::shuffled(self.train.clone(), self.seed, &self.options)
    }

    /// Some 200 of the training's images.
    pub fn sample(&self) -> Result<impl Iterator<Item = Result<Batch>>> {
        let batches = Batches::shuffled(self.plain.clone(), self.seed, &self.options)?;
        Ok(batches.take(200 / self.options.size + 1))
    }

    /// One validation's batches.
    pub fn validation(&self) -> Result<impl Iterator<Item = Result<Batch>>> {
        let batches = Batches::once(self.validation.clone(), &self.options)?;
        Ok(Remembered { batches, left_out: &self.left_out }.take(self.most))
    }

    /// What the last validation left out.
    pub fn left_out_of_validation(&self) -> Skipped {
        self.left_out.borrow().clone()
    }
}

type Sets = (Arc<dyn Dataset>, Arc<dyn Dataset>, Arc<dyn Dataset>);

/// The splits, and as the recipe changes them.
fn from_disk(root: &Path, options: &Options, names: Option<&[&str]>) -> Result<Sets> {
    let open = |split: &str| match names {
        Some(names) => open_dataset_with(root, Some(split), names),
        None => open_dataset(root, Some(split)),
    };
    let (train, validation) = (open(&options.split)?, open(&options.validation_split)?);
    let recipe = options.recipe.unwrap_or(Layout::of(root).recipe());
    let size = (options.image(), options.image());
    let transformed = |dataset: &Arc<dyn Dataset>, transforms: Transforms| -> Arc<dyn Dataset> {
        Arc::new(Transformed::new(dataset.clone(), transforms, options.seed))
    };
    let unchanged = recipe.validation(size)?;
    let plain = transformed(&train, unchanged.clone());
    Ok((transformed(&train, recipe.train(size)?), plain, transformed(&validation, unchanged)))
}

fn scenes(options: &Options) -> Result<Sets> {
    let (seed, size) = (options.seed.wrapping_mul(2), (options.image(), options.image()));
    let train = Arc::new(Scenes::new(seed, 20_000, size)?);
    Ok((train.clone(), train, Arc::new(Scenes::new(seed + 1, options.validation.unwrap_or(48), size)?)))
}

/// The name in `semseg`, `semseg=21` and `rooms:semseg=21`.
fn name_of(task: &str) -> &str {
    task.split(['=', ':']).next().unwrap_or(task).trim()
}

/// Refuses outputs that are not the data set's.
fn check_outputs(asked: &str, tasks: &TaskSet) -> anyhow::Result<()> {
    for (asked, task) in asked.split(',').zip(tasks).filter(|(asked, _)| asked.contains('=')) {
        ensure!(
            asked.trim() == task.to_string(),
            "--tasks: the data set has {task}, got {asked}; its name alone will do"
        );
    }
    Ok(())
}

/// A pass over a data set; what it left out is kept when it ends.
struct Remembered<'a> {
    batches: Batches,
    left_out: &'a RefCell<Skipped>,
}

impl Iterator for Remembered<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next()
    }
}

impl Drop for Remembered<'_> {
    fn drop(&mut self) {
        self.left_out.replace(self.batches.skipped().clone());
    }
}
