//! PASCAL-Context with labels of five tasks, as MTI-Net and MTLoRA published it (`PASCAL_MT`).

mod names;
mod parts;
mod scene;

use super::label_map::{LabelMap, Size};
use super::labels::of_task;
use super::labels::read_label;
use super::published::Published;
use super::split::{first_of, folder_in, id_at, read_split};
use super::stored::Stored;
use crate::sample::{Classes, Dataset, Examined, Sample};
use crate::{Error, Result, Task, TaskKind, TaskSet};
use candle_core::Tensor;
use png::ColorType;
use rayon::prelude::*;
use scene::SceneClasses;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};

/// What the folder is made of.
const LAYOUT: &str =
    "give the folder PASCAL_MT with what was unpacked in it, or open it with_tasks whose labels are there";

/// PASCAL-Context with five tasks, read from its published files (`PASCAL_MT`, 4,998 images to train on and 5,105 to validate).
///
/// ```text
/// PASCAL_MT/
///   JPEGImages/ID.jpg
///   ImageSets/Context/{train,val}.txt     an ID a line
///   semseg/VOC12/ID.png                   class by palette index, 255 unknown; where there is none:
///   semseg/pascal-context/ID.png
///   human_parts/ID.mat                    anno: objects, their masks and parts
///   pascal-context/trainval/ID.mat        LabelMap: one of 460 classes a pixel, of which edges are made, and where normals hold
///   normals_distill/ID.png                (n + 1) / 2 of 255
///   sal_distill/ID.png                    128 and above is salient
/// ```
///
/// | task | label |
/// | --- | --- |
/// | `semseg=21` | the background and VOC's 20 classes, 255 unknown |
/// | `human_parts=7` | 0, and six parts that 24 names stand for; all 0 where nobody is seen |
/// | `sal=1` | 0 or 1 |
/// | `normals=3` | x right, y down, z towards the viewer, as far as 8 bits are exact; unknown outside 170 classes of things that stand still |
/// | `edge=1` | 1 where the classes of the scene change, thinned |
///
/// Images keep the size and the way up in which they are stored; labels of another size are brought to the image's: normals by the cubic,
/// others by the nearest pixel. An image may lack a label's file: the label is absent from its sample. Nothing but names is held.
///
/// # Images without people
/// Their human parts are 0 everywhere, and a training that ignores them does so after its geometric transforms. Where parts are the only
/// task, the released code leaves these images out: here [`PascalContext::with_people`] does, when it is asked to.
///
/// ```no_run
/// use tadformer::TaskSet;
/// use tadformer::data::{Dataset, PascalContext};
/// let train = PascalContext::with_tasks("PASCAL_MT", "train", TaskSet::pascal())?;
/// let sample = train.get(0)?;
/// println!("{}: {:?}, {:?}", train.name(0), sample.image.dims(), sample.labels.keys());
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PascalContext {
    root: PathBuf,
    ids: Vec<String>,
    tasks: TaskSet,
    semseg: Classes,
    parts: Classes,
}

/// The classes of an image's scene, once they were asked for; none where there is no file.
type Scene = OnceCell<Option<SceneClasses>>;

impl PascalContext {
    /// All that it has labels of.
    pub(super) const TASKS: &str = "semseg=21,normals=3,sal=1,human_parts=7,edge=1";

    /// Opens a split, `train` or `val` or any other list of the folder's, with all five tasks.
    ///
    /// # Errors
    /// A folder without images, without this list, or without the labels of a task; a list that is damaged.
    pub fn open(root: impl AsRef<Path>, split: &str) -> Result<Self> {
        Self::with_tasks(root, split, Self::TASKS.parse()?)
    }

    /// Opens a split with some of its tasks, in this order; the others' files need not be there.
    ///
    /// # Errors
    /// As [`PascalContext::open`]; a task that the set has no labels for.
    pub fn with_tasks(root: impl AsRef<Path>, split: &str, tasks: TaskSet) -> Result<Self> {
        let root = root.as_ref().to_owned();
        folder_in(&root, "JPEGImages", LAYOUT)?;
        for task in &tasks {
            check_labels(&root, task)?;
        }
        let ids = read_split(&root.join("ImageSets/Context"), split)?;
        Ok(Self { root, ids, tasks, semseg: names::semseg(), parts: names::parts() })
    }

    /// The images on which a person is seen, as the released code chooses them for a training of human parts alone. It reads each
    /// image's parts once.
    ///
    /// # Errors
    /// A folder without parts; a file of parts that cannot be read.
    pub fn with_people(mut self) -> Result<Self> {
        let task = Task::new(TaskKind::HumanParts, 7)?;
        folder_in(&self.root, "human_parts", LAYOUT).map_err(of_task(&task))?;
        let seen = |id: &String| match first_of([self.parts_file(id)]) {
            Some(path) => parts::has_people(&path).map_err(of_task(&task)),
            None => Ok(false),
        };
        let seen = self.ids.par_iter().map(seen).collect::<Result<Vec<_>>>()?;
        self.ids = self.ids.into_iter().zip(seen).filter_map(|(id, seen)| seen.then_some(id)).collect();
        Ok(self)
    }

    fn parts_file(&self, id: &str) -> PathBuf {
        self.root.join(format!("human_parts/{id}.mat"))
    }

    fn read(&self, index: usize) -> Result<Published<'_>> {
        let id = id_at(&self.ids, index)?;
        let scene = OnceCell::new();
        let photo = self.root.join(format!("JPEGImages/{id}.jpg"));
        Published::read(&photo, &self.tasks, |task, size| self.label(id, task, size, &scene))
    }

    /// A task's label in the image's size; none where its files are missing.
    fn label(&self, id: &str, task: &Task, size: Size, scene: &Scene) -> Result<Option<Tensor>> {
        let file = |name: String| first_of([self.root.join(name)]);
        match task.kind() {
            TaskKind::Semseg => {
                let folders =
                    ["VOC12", "pascal-context"].map(|folder| self.root.join(format!("semseg/{folder}/{id}.png")));
                let read = |path| read_label(path, task)?.resize(size.1 as u32, size.0 as u32)?.tensor();
                first_of(folders).map(read).transpose()
            }
            TaskKind::HumanParts => {
                let nobody = || LabelMap { values: vec![0; size.0 * size.1], size };
                let read = |path: PathBuf| parts::read(&path)?.unwrap_or_else(nobody).nearest(size).tensor();
                first_of([self.parts_file(id)]).map(read).transpose()
            }
            TaskKind::Sal => {
                let read = |path: PathBuf| saliency(&path)?.nearest(size).tensor();
                file(format!("sal_distill/{id}.png")).map(read).transpose()
            }
            TaskKind::Normals => {
                let files = self.scene(id, scene)?.zip(file(format!("normals_distill/{id}.png")));
                files.map(|(scene, path)| scene.normals(&path)?.cubic(size).unknown_where_0().tensor()).transpose()
            }
            TaskKind::Edge => self.scene(id, scene)?.map(|scene| scene.edges().nearest(size).tensor()).transpose(),
            TaskKind::Depth => Ok(None),
        }
    }

    /// The classes of the scene, read for the first task that is made of them; none where their file is missing.
    fn scene<'a>(&self, id: &str, held: &'a Scene) -> Result<Option<&'a SceneClasses>> {
        if held.get().is_none() {
            let file = first_of([self.root.join(format!("pascal-context/trainval/{id}.mat"))]);
            let _ = held.set(file.map(|path| SceneClasses::read(&path)).transpose()?);
        }
        Ok(held.get().and_then(Option::as_ref))
    }
}

impl Dataset for PascalContext {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn tasks(&self) -> &TaskSet {
        &self.tasks
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.read(index)?.sample()
    }

    /// `LabelMap`'s numbers.
    fn segments(&self, index: usize, size: Size) -> Result<Option<Tensor>> {
        let (id, scene) = (id_at(&self.ids, index)?, OnceCell::new());
        self.scene(id, &scene)?.map(|scene| scene.segments().nearest(size).tensor()).transpose()
    }

    fn examine(&self, index: usize) -> Examined {
        Published::examine(self.read(index))
    }

    fn name(&self, index: usize) -> String {
        self.ids.get(index).cloned().unwrap_or_else(|| format!("{index:06}"))
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        match self.tasks.get(task)?.kind() {
            TaskKind::Semseg => Some(&self.semseg),
            TaskKind::HumanParts => Some(&self.parts),
            _ => None,
        }
    }
}

/// Refuses a task that the set has no labels for, and one whose folders are missing.
fn check_labels(root: &Path, task: &Task) -> Result<()> {
    let refuse = || {
        let has = "semseg=21, human_parts=7, sal=1, normals=3 or edge=1";
        Err(Error::config("task", has, task, "these are PASCAL-Context's labels"))
    };
    let folders: &[&str] = match (task.kind(), task.outputs()) {
        (TaskKind::Semseg, 21) => {
            let [first, second] = ["semseg/VOC12", "semseg/pascal-context"];
            if root.join(first).is_dir() { &[first] } else { &[second] }
        }
        (TaskKind::HumanParts, 7) => &["human_parts"],
        (TaskKind::Sal, _) => &["sal_distill"],
        (TaskKind::Normals, _) => &["normals_distill", "pascal-context/trainval"],
        (TaskKind::Edge, _) => &["pascal-context/trainval"],
        _ => return refuse(),
    };
    folders.iter().try_for_each(|folder| folder_in(root, folder, LAYOUT).map(drop).map_err(of_task(task)))
}

fn saliency(path: &Path) -> Result<LabelMap<u8>> {
    let stored = Stored::read(path, super::PIXEL_LIMIT)?;
    if (stored.colour, stored.bits) != (ColorType::Grayscale, 8) {
        let problem = format!("expected 8-bit grey, got {}", stored.form());
        return Err(Error::file(path, problem, "take the file as it was published"));
    }
    let size = (stored.height, stored.width);
    Ok(LabelMap { values: stored.bytes, size }.map(|level| u8::from(level >= 128)))
}
