//! A folder of data, whichever its layout.

use super::{Dataset, Folder, FolderDescription, NyudV2, PascalContext, Recipe};
use crate::{Result, TaskSet};
use std::path::Path;
use std::sync::Arc;

/// Opens `PASCAL_MT`, `NYUD_MT` or a [`Folder`], told apart by what they hold; of the published ones `split` is `train` where none is given,
/// of a folder then all.
///
/// # Errors
/// As [`PascalContext::open`], [`NyudV2::open`], [`Folder::open`] and [`Folder::split`].
pub fn open_dataset(root: impl AsRef<Path>, split: Option<&str>) -> Result<Arc<dyn Dataset>> {
    open(root.as_ref(), split, None)
}

/// [`open_dataset`] with some of its tasks, by name and in this order; the others' labels are not read, and need not be there.
///
/// # Errors
/// As there; a name that no task of the set has, or one given twice.
pub fn open_dataset_with(root: impl AsRef<Path>, split: Option<&str>, tasks: &[&str]) -> Result<Arc<dyn Dataset>> {
    open(root.as_ref(), split, Some(tasks))
}

fn open(root: &Path, split: Option<&str>, tasks: Option<&[&str]>) -> Result<Arc<dyn Dataset>> {
    let of_published = split.unwrap_or("train");
    let chosen = |all: &str| match (all.parse::<TaskSet>()?, tasks) {
        (all, None) => Ok(all),
        (all, Some(names)) => all.only(names),
    };
    Ok(match Layout::of(root) {
        Layout::PascalContext => {
            Arc::new(PascalContext::with_tasks(root, of_published, chosen(PascalContext::TASKS)?)?)
        }
        Layout::NyudV2 => Arc::new(NyudV2::with_tasks(root, of_published, chosen(NyudV2::TASKS)?)?),
        Layout::Folder => {
            let all = FolderDescription::of_folder(root)?;
            let description = tasks.map_or(Ok(all.clone()), |names| all.only(names))?;
            let folder = Folder::described(root, description)?;
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
