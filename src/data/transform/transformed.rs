//! A data set whose samples are transformed as they are read.

use super::Transforms;
use crate::sample::{Classes, Dataset, Fault, scatter};
use crate::{Result, Sample, TaskSet};

/// A data set behind [`Transforms`].
///
/// Seed, epoch and index settle what is drawn for a sample, and nothing else does: neither the order nor the number of threads in which
/// samples are read. [`Dataset::get`] is the sample of epoch 0.
///
/// ```
/// # #[cfg(feature = "scenes")]
/// # fn main() -> tadformer::Result<()> {
/// use tadformer::data::{Dataset, Recipe, Transformed};
/// use tadformer::scenes::Scenes;
/// let scenes = Scenes::new(0, 10, (40, 60))?;
/// let train = Transformed::new(scenes, Recipe::Own.train((32, 32))?, 7);
/// assert_eq!(train.draw(3, 1)?.image.dims(), [3, 32, 32]);
/// # Ok(()) }
/// # #[cfg(not(feature = "scenes"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Transformed<D> {
    dataset: D,
    transforms: Transforms,
    seed: u64,
}

impl<D: Dataset> Transformed<D> {
    /// The samples of a data set after these steps.
    pub fn new(dataset: D, transforms: Transforms, seed: u64) -> Self {
        Self { dataset, transforms, seed }
    }

    /// The seed of what is drawn for a sample.
    fn seed_of(&self, index: usize, epoch: usize) -> u64 {
        [epoch as u64, index as u64].iter().fold(scatter(self.seed), |seed, part| scatter(seed.wrapping_add(*part)))
    }
}

impl<D: Dataset> Dataset for Transformed<D> {
    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn tasks(&self) -> &TaskSet {
        self.dataset.tasks()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.draw(index, 0)
    }

    fn draw(&self, index: usize, epoch: usize) -> Result<Sample> {
        let sample = self.dataset.draw(index, epoch)?;
        self.transforms.apply(sample, self.tasks(), self.seed_of(index, epoch))
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        self.dataset.classes(task)
    }

    fn faults(&self) -> Vec<Fault> {
        self.dataset.faults()
    }
}
