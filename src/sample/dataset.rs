//! Samples by their index.

use super::{Classes, Examined, Fault, FaultKind, Sample};
use crate::{Result, TaskSet};
use candle_core::Tensor;
use std::sync::Arc;

/// Samples by index, the same ones every time.
///
/// A sample has labels of these tasks and no others, `[c, H, W]` as [`Sample`] says, with [`IGNORE`](crate::sample::IGNORE) where nothing
/// is known; one that it lacks is unknown everywhere. Samples that are to share a batch have one size.
///
/// What is drawn at random for training, such as a flip, belongs into [`Dataset::draw`].
///
/// ```
/// use tadformer::candle_core::{Device, Tensor};
/// use tadformer::data::{BatchOptions, Batches, Dataset, image_tensor};
/// use tadformer::{Result, Sample, TaskSet, image::DynamicImage};
/// struct Dark(TaskSet);
/// impl Dataset for Dark {
///     fn len(&self) -> usize {
///         10
///     }
///     fn tasks(&self) -> &TaskSet {
///         &self.0
///     }
///     fn get(&self, index: usize) -> Result<Sample> {
///         let photo = DynamicImage::new_rgb8(48, 32); // from a file: data::read_photo, and data::read_label for its label
///         Sample::new(image_tensor(&photo)?, [("depth", Tensor::full(index as f32, (1, 32, 48), &Device::Cpu)?)])
///     }
/// }
/// let mut batches = Batches::once(std::sync::Arc::new(Dark("depth=1".parse()?)), &BatchOptions::new(4))?;
/// assert_eq!(batches.next().transpose()?.map(|batch| batch.images.dims().to_vec()), Some(vec![4, 3, 32, 48]));
/// # Ok::<(), tadformer::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// How many samples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tasks that it has labels for.
    fn tasks(&self) -> &TaskSet;

    /// Reads or makes the sample of this index, from 0 to `len() - 1`; called from several threads at once.
    ///
    /// # Errors
    /// A sample that cannot be read, an index beyond the end.
    fn get(&self, index: usize) -> Result<Sample>;

    /// The sample as this epoch of a training sees it: [`Dataset::get`]'s, unless the set draws something at random, which index and
    /// epoch then settle.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn draw(&self, index: usize, _epoch: usize) -> Result<Sample> {
        self.get(index)
    }

    /// What the sample is called in messages, reports and exported files: its index, unless the set knows better.
    fn name(&self, index: usize) -> String {
        format!("{index:06}")
    }

    /// The classes of a task, where the set names them.
    fn classes(&self, _task: &str) -> Option<&Classes> {
        None
    }

    /// An image's segments, `[1, H, W]` of u32 at this height and width, where the set has them: their boundaries are the true edges of
    /// the benchmark, which need not be those of the edge label.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    fn segments(&self, _index: usize, _size: (usize, usize)) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// What [`Dataset::get`] would read, with all that is wrong instead of the first thing: for `data::inspect`.
    fn examine(&self, index: usize) -> Examined {
        match self.get(index) {
            Ok(sample) => Examined { sample: Some(sample), faults: Vec::new() },
            Err(error) => Examined { sample: None, faults: vec![Fault::of_image(FaultKind::Unreadable, error)] },
        }
    }

    /// What is wrong with the set beside its samples, such as a label that belongs to no image.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn tasks(&self) -> &TaskSet {
        (**self).tasks()
    }

    fn get(&self, index: usize) -> Result<Sample> {
        (**self).get(index)
    }

    fn draw(&self, index: usize, epoch: usize) -> Result<Sample> {
        (**self).draw(index, epoch)
    }

    fn name(&self, index: usize) -> String {
        (**self).name(index)
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        (**self).classes(task)
    }

    fn segments(&self, index: usize, size: (usize, usize)) -> Result<Option<Tensor>> {
        (**self).segments(index, size)
    }

    fn examine(&self, index: usize) -> Examined {
        (**self).examine(index)
    }

    fn faults(&self) -> Vec<Fault> {
        (**self).faults()
    }
}
