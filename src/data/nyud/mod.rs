//! NYUD-v2 with labels of four tasks, as MTI-Net and MTLoRA published it (`NYUD_MT`), and as others pass it on.

mod labels;
mod names;

use super::label_map::Size;
use super::labels::of_task;
use super::published::Published;
use super::split::{first_of, folder_in, id_at, read_split};
use crate::sample::{Classes, Dataset, Examined, Sample};
use crate::{Error, Result, Task, TaskKind, TaskSet};
use candle_core::Tensor;
use std::path::{Path, PathBuf};

const LAYOUT: &str =
    "give the folder NYUD_MT with what was unpacked in it, or open it with_tasks whose labels are there";

/// NYUD-v2 with four tasks, read from its published files (`NYUD_MT`, 795 images to train on and 654 to validate).
///
/// | file | holds | in other layouts |
/// | --- | --- | --- |
/// | `gt_sets/{train,val}.txt` | an ID a line | |
/// | `images/ID.jpg` | the photo | `.png` |
/// | `segmentation/ID.png` | class by palette index or grey, 1 to 40, 0 unknown | `.mat`, variable `segmentation` (ASTMT) |
/// | `depth/ID.npy` | metres, 0 unknown | `.mat`, variable `depth` (ASTMT) |
/// | `normals/ID.npy` | vectors H x W x 3, length 0 unknown | `.png` (InvPT), `.jpg` (ASTMT): (n + 1) / 2 of 255, black and mid-grey unknown |
/// | `edge/ID.npy` | 0 or 1 | `.png` of 0 and 255 (ASTMT, InvPT) |
///
/// | task | label |
/// | --- | --- |
/// | `semseg=40` | the stored number less 1, 255 unknown, whatever the layout: ASTMT trained 41 classes with the unlabelled as one |
/// | `depth=1` | metres |
/// | `normals=3` | x right, y down, z towards the viewer, as stored |
/// | `edge=1` | 0 or 1 |
///
/// Each image's file is the first of its row that there is. Images keep the size and the way up in which they are stored; labels of
/// another size are brought to the image's: normals by the cubic, others by the nearest pixel. An image may lack a label's file: the label
/// is absent from its sample. Nothing but names is held.
///
/// ```no_run
/// use tadformer::data::{Dataset, NyudV2};
/// let val = NyudV2::open("NYUD_MT", "val")?;
/// let sample = val.get(0)?;
/// println!("{}: {:?}, {:?}", val.name(0), sample.image.dims(), sample.labels.keys());
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NyudV2 {
    root: PathBuf,
    ids: Vec<String>,
    tasks: TaskSet,
    classes: Classes,
}

impl NyudV2 {
    /// All that it has labels of.
    pub(super) const TASKS: &str = "semseg=40,depth=1,normals=3,edge=1";

    /// Opens a split, `train` or `val` or any other list of the folder's, with all four tasks.
    ///
    /// # Errors
    /// A folder without images, without this list, or without the labels of a task; a list that is damaged.
    pub fn open(root: impl AsRef<Path>, split: &str) -> Result<Self> {
        Self::with_tasks(root, split, Self::TASKS.parse()?)
    }

    /// Opens a split with some of its tasks, in this order; the others' files need not be there.
    ///
    /// # Errors
    /// As [`NyudV2::open`]; a task that the set has no labels for.
    pub fn with_tasks(root: impl AsRef<Path>, split: &str, tasks: TaskSet) -> Result<Self> {
        let root = root.as_ref().to_owned();
        folder_in(&root, "images", LAYOUT)?;
        for task in &tasks {
            folder_in(&root, folder_of(task)?, LAYOUT).map_err(of_task(task))?;
        }
        let ids = read_split(&root.join("gt_sets"), split)?;
        Ok(Self { root, ids, tasks, classes: names::classes() })
    }

    /// The file of an image in one of these forms.
    fn file(&self, folder: &str, id: &str, endings: &[&str]) -> Option<PathBuf> {
        first_of(endings.iter().map(|ending| self.root.join(format!("{folder}/{id}.{ending}"))))
    }

    fn read(&self, index: usize) -> Result<Published<'_>> {
        let id = id_at(&self.ids, index)?;
        let photo = self.file("images", id, &["jpg", "png"]);
        let photo = photo.unwrap_or_else(|| self.root.join(format!("images/{id}.jpg")));
        Published::read(&photo, &self.tasks, |task, size| self.label(id, task, size))
    }

    /// A task's label in the image's size; none where its file is missing.
    fn label(&self, id: &str, task: &Task, size: Size) -> Result<Option<Tensor>> {
        let folder = folder_of(task)?;
        let Some(path) = self.file(folder, id, labels::endings(task.kind())) else { return Ok(None) };
        let label = match task.kind() {
            TaskKind::Semseg => labels::classes(&path)?.nearest(size).tensor(),
            TaskKind::Edge => labels::edges(&path)?.nearest(size).tensor(),
            TaskKind::Normals => labels::normals(&path)?.cubic(size).unknown_where_0().tensor(),
            _ => labels::depths(&path)?.nearest(size).unknown_where_0().tensor(),
        };
        label.map(Some)
    }
}

impl Dataset for NyudV2 {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.read(index)?.sample()
    }

    fn examine(&self, index: usize) -> Examined {
        Published::examine(self.read(index))
    }

    fn name(&self, index: usize) -> String {
        self.ids.get(index).cloned().unwrap_or_else(|| format!("{index:06}"))
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        (self.tasks.get(task)?.kind() == TaskKind::Semseg).then_some(&self.classes)
    }
}

/// Where a task's labels lie.
fn folder_of(task: &Task) -> Result<&'static str> {
    match (task.kind(), task.outputs()) {
        (TaskKind::Semseg, 40) => Ok("segmentation"),
        (TaskKind::Depth, _) => Ok("depth"),
        (TaskKind::Normals, _) => Ok("normals"),
        (TaskKind::Edge, _) => Ok("edge"),
        _ => {
            let has = "semseg=40, depth=1, normals=3 or edge=1";
            Err(Error::config("task", has, task, "these are NYUD-v2's labels"))
        }
    }
}
