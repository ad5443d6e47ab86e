//! Data: samples by index, and batches of them read ahead of the training.
//!
//! [`Folder`] is a folder of one's own images and labels, [`PascalContext`] and [`NyudV2`] are the papers' sets in their published files,
//! [`Scenes`](crate::scenes::Scenes) renders its samples and so needs no download; whatever else implements [`Dataset`] can be trained on
//! alike. [`read_photo`], [`byte_image`] and [`read_label`] are what a data set over files is made of. [`inspect`] tells what is in a set
//! and all that is wrong with it, [`export`] writes any as a [`Folder`].
//! Photos and labels stay bytes until a tensor is made of them, after cropping and resizing.
//!
//! [`Transformed`] takes each sample through [`Transforms`], image and labels together; [`Recipe`] names the usual lists of them.
//!
//! ```
//! use std::sync::Arc;
//! use tadformer::data::{BatchOptions, Batches};
//! use tadformer::scenes::Scenes;
//! let scenes = Arc::new(Scenes::new(0, 1000, (32, 32))?);
//! let mut batches = Batches::shuffled(scenes, 1, &BatchOptions::new(4))?;
//! let batch = batches.next().transpose()?;
//! assert_eq!(batch.map(|batch| batch.len()), Some(4));
//! # Ok::<(), tadformer::Error>(())
//! ```

mod ahead;
mod arrays;
mod batches;
mod export;
mod folder;
mod inspect;
mod label;
mod label_map;
mod labels;
pub mod mat;
mod npy;
mod numbers;
mod nyud;
mod open;
mod order;
mod pascal;
mod photos;
mod pixel_limit;
mod published;
mod raster;
mod split;
mod stored;
mod transform;

pub use crate::sample::Dataset;
#[cfg(feature = "train")]
pub(crate) use ahead::{Ahead, Make, Wanted};
pub use batches::{BatchOptions, Batches, Skipped, Unreadable};
pub use export::{ExportOptions, ImageFile, export};
pub use folder::{Colour, Folder, FolderDescription, Split, TaskDescription};
pub use inspect::{Contents, Finding, Inspection, TaskContents, inspect};
pub use label::Label;
pub use labels::{LabelForm, read_label, read_label_as, read_label_within};
pub use npy::{NpyMap, read_npy, read_npy_within};
pub use nyud::NyudV2;
pub use open::{Layout, open_dataset};
pub use pascal::PascalContext;
pub use photos::{
    byte_image, image_tensor, photos, read_photo, read_photo_bytes, read_photo_bytes_within, read_photo_within,
};
pub(crate) use photos::{check_photo, decode_photo, decode_photo_bytes};
pub use pixel_limit::PIXEL_LIMIT;
pub use transform::{Outside, Place, Recipe, Scale, Shrink, Transform, Transformed, Transforms};
