//! What a folder holds, found by looking at it.

use super::listing::{IMAGES, OF_LABELS, list};
use super::looked::Looked;
use super::{Colour, FolderDescription, Split, TaskDescription};
use crate::{Error, Result, TaskKind};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Names of folders that tell a kind, beside the kinds' own.
const ALSO: [(&str, TaskKind); 12] = [
    ("segmentation", TaskKind::Semseg),
    ("semantic", TaskKind::Semseg),
    ("classes", TaskKind::Semseg),
    ("parts", TaskKind::HumanParts),
    ("saliency", TaskKind::Sal),
    ("salient", TaskKind::Sal),
    ("normal", TaskKind::Normals),
    ("surface_normals", TaskKind::Normals),
    ("edges", TaskKind::Edge),
    ("boundaries", TaskKind::Edge),
    ("depths", TaskKind::Depth),
    ("distance", TaskKind::Depth),
];

impl FolderDescription {
    /// Finds out what a folder without `dataset.toml` holds.
    ///
    /// A folder beside `images` that holds PNG or npy files is a task. Its name tells the kind where it is one's (`semseg`, `depth`); else the form
    /// of its files does: a palette or many greys are `semseg`, black and white `sal`, RGB `normals`, 16-bit grey `depth`; arrays of three numbers a pixel are
    /// `normals`, of fractions `depth`. Classes are as
    /// many as the largest number found asks for, in the palette's colours; every label of classes is read for that. A fifth of the images
    /// is for validation.
    ///
    /// # Errors
    /// A folder that cannot be read, or without a task.
    pub fn infer(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let mut tasks = Vec::new();
        for name in folders(root)? {
            tasks.extend(task(&root.join(&name), &name)?);
        }
        if tasks.is_empty() {
            let cure = "labels of a task are PNG or npy files in a folder of its name, beside `images`: semseg, depth";
            return Err(Error::file(root, "no folder of labels", cure));
        }
        tasks.sort_by_key(|task| task.kind);
        let splits = [("train", 0.8), ("val", 0.2)].map(|(name, share)| (name.to_owned(), Split::Share(share)));
        Self { tasks, splits: splits.into() }.checked()
    }
}

/// The folders that could be a task's, by name.
fn folders(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root).map_err(Error::io(root, "read"))? {
        let entry = entry.map_err(Error::io(root, "read"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != IMAGES && !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The task whose labels lie in a folder; none where it holds none that can be read.
fn task(folder: &Path, name: &str) -> Result<Option<TaskDescription>> {
    let files: Vec<PathBuf> = list(folder, OF_LABELS)?.into_values().map(|file| folder.join(file)).collect();
    let Some(first) = files.iter().find_map(|file| Looked::at(file)) else { return Ok(None) };
    let task = TaskDescription::new(name, kind_of_name(name).unwrap_or_else(|| first.kind()));
    Ok(Some(if task.kind.is_classes() { with_classes(task, &files, first.palette()) } else { task }))
}

fn kind_of_name(name: &str) -> Option<TaskKind> {
    let own = TaskKind::ALL.iter().copied().find(|kind| kind.name() == name);
    own.or_else(|| ALSO.iter().find(|(also, _)| *also == name).map(|(_, kind)| *kind))
}

/// With as many classes as the files hold, in the colours of the first one's palette.
fn with_classes(task: TaskDescription, files: &[PathBuf], palette: &[[u8; 3]]) -> TaskDescription {
    let highest = files.par_iter().filter_map(|file| Looked::at(file)?.highest()).max().unwrap_or_default();
    let classes = (usize::from(highest) + 1).max(2);
    let colours = palette.get(..classes).unwrap_or_default().iter().copied().map(Colour).collect();
    TaskDescription { classes: Some(classes), colours, ..task }
}
