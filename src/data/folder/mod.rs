//! A folder of one's own images and labels as a data set.

mod colour;
mod description;
mod infer;
mod listing;
mod looked;
mod member;
mod split;

pub use colour::Colour;
pub use description::{FolderDescription, TaskDescription};
pub use split::Split;

use super::Dataset;
use crate::sample::{Classes, Examined, Fault, FaultKind};
use crate::{Error, Result, Sample, TaskSet};
pub(super) use listing::IMAGES;
use listing::{Listing, OF_IMAGES, OF_LABELS, list};
use member::{Layout, Member};
use split::Share;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Images and their labels in a folder.
///
/// ```text
/// rooms/
///     dataset.toml          what it holds: FolderDescription; inferred where there is none
///     images/   a.jpg  b.png  c.jpeg
///     semseg/   a.png  b.png              a label has its image's name and size
///     depth/    b.png         c.png       and may be missing
/// ```
///
/// Labels lie in a folder of the task's name: PNG files as [`read_label`](super::read_label) tells, or `.npy` files as
/// [`read_npy`](super::read_npy) does, which hold classes, 0 and 1 of masks, unit normals `[H, W, 3]`, and depths in metres; 255 is unknown
/// there, and so are a depth of 0, a normal of 0 0 0 and what is no number. A label that an image lacks leaves loss and metrics. Samples have their image's own size, turned the way up that the camera noted, and bytes from 0 to 255.
///
/// ```
/// use tadformer::data::{Dataset, Folder};
/// use tadformer::image::{GrayImage, Luma, RgbImage};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = tempfile::tempdir()?;
/// for folder in ["images", "semseg"] {
///     std::fs::create_dir(rooms.path().join(folder))?;
/// }
/// RgbImage::new(40, 30).save(rooms.path().join("images/a.png"))?;
/// GrayImage::from_pixel(40, 30, Luma([4])).save(rooms.path().join("semseg/a.png"))?;
/// let folder = Folder::open(rooms.path())?; // or Folder::open(path)?.split("train")?
/// assert_eq!((folder.len(), folder.tasks().to_string()), (1, "semseg=5".into()));
/// assert_eq!(folder.get(0)?.labels["semseg"].dims(), [1, 30, 40]);
/// folder.description().save(rooms.path())?; // to give classes names, more classes, and splits
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Folder {
    layout: Layout,
    description: FolderDescription,
    classes: BTreeMap<String, Classes>,
    members: Vec<Member>,
    loose: Loose,
}

/// What belongs to no image.
#[derive(Clone, Debug, Default)]
struct Loose {
    /// Labels, by task.
    labels: Vec<(String, PathBuf)>,
    /// Names in lists, by split.
    names: Vec<(String, String)>,
}

impl Folder {
    /// Opens a folder as its `dataset.toml` describes it; without one, as [`FolderDescription::infer`] finds it.
    ///
    /// # Errors
    /// As there and as [`Folder::described`]; a `dataset.toml` that cannot be read.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        Self::described(root, FolderDescription::of_folder(root)?)
    }

    /// Opens a folder that holds what this description says. No file is read yet.
    ///
    /// # Errors
    /// A description that cannot work; a folder without images; a task without its folder; two images, or two labels of a task, of one
    /// name.
    pub fn described(root: impl AsRef<Path>, description: FolderDescription) -> Result<Self> {
        let (root, description) = (root.as_ref(), description.checked()?);
        let tasks = description.task_set()?;
        let images = images(root)?;
        let labels = tasks.iter().map(|task| labels(root, task.name())).collect::<Result<Vec<_>>>()?;
        let member = |(name, image): (&String, &String)| Member {
            name: name.clone(),
            image: image.clone(),
            labels: labels.iter().map(|listing| listing.get(name).cloned()).collect(),
        };
        let stray = |(name, listing): (&str, &Listing)| {
            let strays = listing.iter().filter(|(stem, _)| !images.contains_key(*stem));
            strays.map(|(_, file)| (name.to_owned(), root.join(name).join(file))).collect::<Vec<_>>()
        };
        let loose = Loose {
            labels: tasks.iter().map(|task| task.name()).zip(&labels).flat_map(stray).collect(),
            names: unknown_names(&description, &images),
        };
        let named = description.tasks.iter().map(|task| (task.name.clone(), task.class_list()));
        Ok(Self {
            members: images.iter().map(member).collect(),
            loose,
            classes: named.filter(|(_, classes)| *classes != Classes::default()).collect(),
            layout: Layout {
                root: root.to_owned(),
                tasks,
                forms: description.tasks.iter().map(TaskDescription::form).collect(),
            },
            description,
        })
    }

    /// What it holds.
    pub fn description(&self) -> &FolderDescription {
        &self.description
    }

    /// The images of one of the description's splits.
    ///
    /// # Errors
    /// A split that there is not, or without an image; a list that names an image that there is not, or one twice.
    pub fn split(&self, name: &str) -> Result<Self> {
        let members = match self.description.splits.get(name) {
            None => {
                let known: Vec<&str> = self.description.splits.keys().map(String::as_str).collect();
                let cure = "give it under [splits] in dataset.toml, as a share or as a list of names";
                return Err(Error::config("split", format!("one of {known:?}"), name, cure));
            }
            Some(Split::Names(names)) => self.listed(name, names)?,
            Some(Split::Share(_)) => {
                let share = Share::of(name, &self.description.splits);
                let has = |member: &&Member| share.as_ref().is_some_and(|share| share.has(&member.name));
                self.members.iter().filter(has).cloned().collect()
            }
        };
        if members.is_empty() {
            let problem = format!("the split `{name}` has none of the {} images", self.members.len());
            return Err(Error::file(&self.layout.root, problem, "give it a larger share, or list images"));
        }
        Ok(Self { members, loose: Loose::default(), ..self.clone() })
    }

    fn listed(&self, split: &str, names: &[String]) -> Result<Vec<Member>> {
        let by_name: BTreeMap<&str, &Member> =
            self.members.iter().map(|member| (member.name.as_str(), member)).collect();
        let (mut seen, mut members) = (BTreeSet::new(), Vec::new());
        for name in names {
            if !seen.insert(name) {
                let problem = format!("{name} stands twice in the split `{split}`");
                return Err(Error::file(&self.layout.root, problem, "name it once"));
            }
            let member = by_name.get(name.as_str()).ok_or_else(|| self.unlisted(split, name))?;
            members.push((*member).clone());
        }
        Ok(members)
    }

    fn unlisted(&self, split: &str, name: &str) -> Error {
        let problem = format!("no image {name}, which the split `{split}` names");
        Error::file(&self.layout.root.join(IMAGES), problem, "names are those of the files without their endings")
    }

    fn member(&self, index: usize) -> Result<&Member> {
        self.members.get(index).ok_or_else(|| {
            let expected = format!("below {}, the number of images", self.members.len());
            Error::config("index", expected, index, "indices count from 0")
        })
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn tasks(&self) -> &TaskSet {
        &self.layout.tasks
    }

    fn get(&self, index: usize) -> Result<Sample> {
        self.member(index)?.read(&self.layout)
    }

    fn name(&self, index: usize) -> String {
        self.members.get(index).map_or_else(|| format!("{index:06}"), |member| member.name.clone())
    }

    fn classes(&self, task: &str) -> Option<&Classes> {
        self.classes.get(task)
    }

    fn examine(&self, index: usize) -> Examined {
        match self.member(index) {
            Ok(member) => member.examine(&self.layout),
            Err(error) => Examined { sample: None, faults: vec![Fault::of_image(FaultKind::Missing, error)] },
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let stray = |(task, path): &(String, PathBuf)| {
            let error = Error::file(path, "a label of no image", "add the image, or remove the label");
            Fault::of_label(task, FaultKind::Stray, error)
        };
        let missing =
            |(split, name): &(String, String)| Fault::of_image(FaultKind::Missing, self.unlisted(split, name));
        self.loose.labels.iter().map(stray).chain(self.loose.names.iter().map(missing)).collect()
    }
}

/// The names that the splits' lists give and no image has.
fn unknown_names(description: &FolderDescription, images: &Listing) -> Vec<(String, String)> {
    let unknown = |(split, list): (&String, &Split)| match list {
        Split::Names(names) => {
            let unknown = names.iter().filter(|name| !images.contains_key(*name));
            unknown.map(|name| (split.clone(), name.clone())).collect()
        }
        Split::Share(_) => Vec::new(),
    };
    description.splits.iter().flat_map(unknown).collect()
}

fn images(root: &Path) -> Result<Listing> {
    let folder = root.join(IMAGES);
    let images = list(&folder, OF_IMAGES)?;
    if images.is_empty() {
        return Err(Error::file(&folder, "no JPEG or PNG file", "put the images there"));
    }
    Ok(images)
}

fn labels(root: &Path, task: &str) -> Result<Listing> {
    let folder = root.join(task);
    if !folder.is_dir() {
        let cure =
            format!("labels of `{task}` lie in a folder of that name; take the task out of dataset.toml otherwise");
        return Err(Error::file(&folder, "no such folder", cure));
    }
    list(&folder, OF_LABELS)
}
