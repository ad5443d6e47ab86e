//! A folder of data, whichever its layout.

use super::{Dataset, Folder, NyudV2, PascalContext};
use crate::Result;
use std::path::Path;
use std::sync::Arc;

/// Opens `PASCAL_MT`, `NYUD_MT` or a [`Folder`], told apart by what they hold; of the published ones `split` is `train` where none is given,
/// of a folder then all.
///
/// # Errors
/// As [`PascalContext::open`], [`NyudV2::open`], [`Folder::open`] and [`Folder::split`].
pub fn open_dataset(root: impl AsRef<Path>, split: Option<&str>) -> Result<Arc<dyn Dataset>> {
    let root = root.as_ref();
    if root.join("ImageSets/Context").is_dir() {
        return Ok(Arc::new(PascalContext::open(root, split.unwrap_or("train"))?));
    }
    if root.join("gt_sets").is_dir() {
        return Ok(Arc::new(NyudV2::open(root, split.unwrap_or("train"))?));
    }
    let folder = Folder::open(root)?;
    Ok(Arc::new(match split {
        Some(split) => folder.split(split)?,
        None => folder,
    }))
}
