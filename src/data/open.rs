//! A folder of data, whichever its layout.

use super::{Dataset, Folder, NyudV2, PascalContext, Recipe};
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
    let of_published = split.unwrap_or("train");
    Ok(match Layout::of(root) {
        Layout::PascalContext => Arc::new(PascalContext::open(root, of_published)?),
        Layout::NyudV2 => Arc::new(NyudV2::open(root, of_published)?),
        Layout::Folder => {
            let folder = Folder::open(root)?;
            Arc::new(match split {
                Some(split) => folder.split(split)?,
                None => folder,
            })
        }
    })
}

/// How a folder of data is laid out.
///
/// ```
/// use tadformer::data::{Layout, Recipe};
/// let empty = tempfile::tempdir().unwrap();
/// assert_eq!(Layout::of(empty.path()), Layout::Folder);
/// assert_eq!(Layout::PascalContext.recipe(), Recipe::Pascal);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// [`PascalContext`]'s: it has `ImageSets/Context`.
    PascalContext,
    /// [`NyudV2`]'s: it has `gt_sets`.
    NyudV2,
    /// [`Folder`]'s: any other.
    Folder,
}

impl Layout {
    /// By what the folder holds.
    pub fn of(root: impl AsRef<Path>) -> Self {
        let has = |folder: &str| root.as_ref().join(folder).is_dir();
        match (has("ImageSets/Context"), has("gt_sets")) {
            (true, _) => Self::PascalContext,
            (false, true) => Self::NyudV2,
            (false, false) => Self::Folder,
        }
    }

    /// The recipe that published results on such data were trained by; for a folder of one's own [`Recipe::Own`].
    pub fn recipe(self) -> Recipe {
        match self {
            Self::PascalContext => Recipe::Pascal,
            Self::NyudV2 => Recipe::Nyud,
            Self::Folder => Recipe::Own,
        }
    }
}
