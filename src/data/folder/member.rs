//! One image of a folder with its labels.

use super::listing::{IMAGES, is_array};
use crate::data::PIXEL_LIMIT;
use crate::data::arrays::{ArrayForm, examine_array};
use crate::data::labels::{LabelForm, Refusal, examine_label, unreadable};
use crate::data::photos::{byte_image, decode_photo};
use crate::sample::{Examined, Fault, FaultKind};
use crate::{Error, Result, Sample, Task, TaskSet};
use candle_core::Tensor;
use image::DynamicImage;
use image::metadata::Orientation;
use std::path::{Path, PathBuf};

/// An image and the labels that there are of it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Of its files, without the ending.
    pub name: String,
    /// The image's file.
    pub image: String,
    /// The labels' files, by task.
    pub labels: Vec<Option<String>>,
}

/// Where a folder's files lie, and how they store labels.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub root: PathBuf,
    pub tasks: TaskSet,
    /// By task.
    pub forms: Vec<Form>,
}

/// How the files of a task store its labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub png: LabelForm,
    pub array: ArrayForm,
}

/// An image that was read: its size, and whether it was turned.
struct Shown {
    width: usize,
    height: usize,
    turned: bool,
}

/// A label's file, and the task and form that it is read by.
struct LabelFile<'a> {
    task: &'a Task,
    form: Form,
    path: PathBuf,
}

impl Member {
    /// The sample, or the first thing that is wrong with it.
    pub fn read(&self, layout: &Layout) -> Result<Sample> {
        let (image, shown) = self.image(layout)?;
        let read = |file: LabelFile| match file.read(&shown) {
            Ok(label) => Ok((file.task.name().to_owned(), label)),
            Err(refusal) => Err(refusal.1),
        };
        Sample::new(image, self.labels(layout).map(read).collect::<Result<Vec<_>>>()?)
    }

    /// What can be read of the sample, and all that is wrong with it.
    pub fn examine(&self, layout: &Layout) -> Examined {
        let (image, shown) = match self.image(layout) {
            Ok(image) => image,
            // Its labels are not compared with it, and so not read.
            Err(error) => {
                return Examined { sample: None, faults: vec![Fault::of_image(FaultKind::Unreadable, error)] };
            }
        };
        let (mut sample, mut faults) = (Sample::of_image(image), Vec::new());
        for file in self.labels(layout) {
            match file.read(&shown) {
                Ok(label) => drop(sample.labels.insert(file.task.name().to_owned(), label)),
                Err(refusal) => faults.push(Fault::of_label(file.task.name(), refusal.0, refusal.1)),
            }
        }
        Examined { sample: Some(sample), faults }
    }

    fn image(&self, layout: &Layout) -> Result<(Tensor, Shown)> {
        let path = layout.root.join(IMAGES).join(&self.image);
        let (mut image, orientation): (DynamicImage, _) = decode_photo(&path, PIXEL_LIMIT)?;
        image.apply_orientation(orientation);
        let (width, height) = (image.width() as usize, image.height() as usize);
        let shown = Shown { width, height, turned: orientation != Orientation::NoTransforms };
        Ok((byte_image(&image)?, shown))
    }

    /// The labels that there are.
    fn labels<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = LabelFile<'a>> {
        let files = layout.tasks.iter().zip(&layout.forms).zip(&self.labels);
        files.filter_map(|((task, form), file)| {
            let path = layout.root.join(task.name()).join(file.as_ref()?);
            Some(LabelFile { task, form: *form, path })
        })
    }
}

impl LabelFile<'_> {
    /// The label, which is to be of its image's size.
    fn read(&self, shown: &Shown) -> std::result::Result<Tensor, Refusal> {
        let label = self.tensor()?;
        let &[.., height, width] = label.dims() else { return Ok(label) };
        if (width, height) == (shown.width, shown.height) {
            return Ok(label);
        }
        let (name, wide, high) = (self.task.name(), shown.width, shown.height);
        let problem = format!("label of {name}: expected {wide} x {high} pixels, as its image, got {width} x {height}");
        let cure = match shown.turned && (width, height) == (high, wide) {
            true => "the image's Exif note turns it: label it as it is shown, or remove the note",
            false => "label the image at its own size",
        };
        Err(Box::new((FaultKind::Size, Error::file(&self.path, problem, cure))))
    }

    fn tensor(&self) -> std::result::Result<Tensor, Refusal> {
        let path: &Path = &self.path;
        if is_array(path) {
            return examine_array(path, self.task, self.form.array);
        }
        examine_label(path, self.task, &self.form.png)?.tensor().map_err(|error| unreadable(error, self.task))
    }
}
