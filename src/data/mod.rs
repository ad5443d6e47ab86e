//! Data: samples by index, and batches of them read ahead of the training.
//!
//! [`Scenes`] renders its samples and so needs no download; whatever else implements [`Dataset`] can be trained on alike.
//! [`read_photo`], [`image_tensor`] and [`read_label`] are what one over files is made of: the example `dataset` is one. Both keep
//! bytes until a tensor is made of them, after cropping and resizing.
//!
//! ```
//! use std::sync::Arc;
//! use tadformer::data::{BatchOptions, Batches, Scenes};
//! let scenes = Arc::new(Scenes::new(0, 1000, (32, 32))?);
//! let mut batches = Batches::shuffled(scenes, 1, &BatchOptions::new(4))?;
//! let batch = batches.next().transpose()?;
//! assert_eq!(batch.map(|batch| batch.len()), Some(4));
//! # Ok::<(), tadformer::Error>(())
//! ```

mod batches;
mod labels;
mod photos;
mod pixel_limit;
pub mod scenes;

pub use batches::{BatchOptions, Batches};
pub use labels::{Label, read_label, read_label_within};
pub(crate) use photos::{check_photo, decode_photo};
pub use photos::{image_tensor, photos, read_photo, read_photo_within};
pub use pixel_limit::PIXEL_LIMIT;
pub use scenes::Scenes;

use crate::{Result, Sample, TaskSet};

/// Samples by index, the same ones every time.
///
/// Every sample has a label of every task, `[c, H, W]` as [`Sample`] says, filled with
/// [`IGNORE`](crate::sample::IGNORE) where nothing is known; samples that are to share a batch have one size.
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
}
