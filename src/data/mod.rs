//! Data: samples by index, and batches of them read ahead of the training.
//!
//! [`Scenes`] renders its samples and so needs no download; whatever else implements [`Dataset`] can be trained on alike.
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
mod photos;
pub mod scenes;

pub use batches::{BatchOptions, Batches};
pub use photos::{photos, read_photo};
pub use scenes::Scenes;

use crate::{Result, Sample, TaskSet};

/// Samples by index, the same ones every time.
///
/// Every sample has a label of every task, `[c, H, W]` as [`Sample`] says, filled with
/// [`IGNORE`](crate::sample::IGNORE) where nothing is known; samples that are to share a batch have one size.
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
