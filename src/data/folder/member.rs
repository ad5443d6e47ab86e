//! One image of a folder with its labels.

use super::Folder;
use super::description::IMAGES;
use crate::data::labels::{Refusal, examine_label};
use crate::data::photos::{byte_image, decode_photo};
use crate::data::{Dataset, PIXEL_LIMIT};
use crate::sample::{Examined, Fault, FaultKind};
use crate::{Error, Result, Sample, Task};
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

/// An image that was read: its size, and whether it was turned.
struct Shown {
    size: (u32, u32),
    turned: bool,
}

impl Member {
    /// The sample, or the first thing that is wrong with it.
    pub fn read(&self, folder: &Folder) -> Result<Sample> {
        let (image, shown) = self.image(folder)?;
        let read = |(task, path): (&Task, PathBuf)| match label(folder, task, &path, &shown) {
            Ok(label) => Ok((task.name().to_owned(), label)),
            Err(refusal) => Err(refusal.1),
        };
        Sample::new(image, self.labels(folder).map(read).collect::<Result<Vec<_>>>()?)
    }

    /// What can be read of the sample, and all that is wrong with it.
    pub fn examine(&self, folder: &Folder) -> Examined {
        let (image, shown) = match self.image(folder) {
            Ok(image) => image,
            // Its labels are not compared with it, and so not read.
            Err(error) => {
                return Examined { sample: None, faults: vec![Fault::of_image(FaultKind::Unreadable, error)] };
            }
        };
        let (mut sample, mut faults) = (Sample::of_image(image), Vec::new());
        for (task, path) in self.labels(folder) {
            match label(folder, task, &path, &shown) {
                Ok(label) => drop(sample.labels.insert(task.name().to_owned(), label)),
                Err(refusal) => faults.push(Fault::of_label(task.name(), refusal.0, refusal.1)),
            }
        }
        Examined { sample: Some(sample), faults }
    }

    fn image(&self, folder: &Folder) -> Result<(Tensor, Shown)> {
        let path = folder.root.join(IMAGES).join(&self.image);
        let (mut image, orientation): (DynamicImage, _) = decode_photo(&path, PIXEL_LIMIT)?;
        image.apply_orientation(orientation);
        let shown = Shown { size: (image.width(), image.height()), turned: orientation != Orientation::NoTransforms };
        Ok((byte_image(&image)?, shown))
    }

    /// The labels that there are, each with its task.
    fn labels<'a>(&'a self, folder: &'a Folder) -> impl Iterator<Item = (&'a Task, PathBuf)> {
        let files = folder.tasks().iter().zip(&self.labels);
        files.filter_map(|(task, file)| Some((task, folder.root.join(task.name()).join(file.as_ref()?))))
    }
}

/// The label in a file, which is to be of its image's size.
fn label(folder: &Folder, task: &Task, path: &Path, shown: &Shown) -> std::result::Result<Tensor, Refusal> {
    let described = folder.description.tasks.iter().find(|described| described.name == task.name());
    let form = described.map(|described| described.form()).unwrap_or_default();
    let label = examine_label(path, task, &form)?;
    let ((width, height), (wide, high)) = (label.dimensions(), shown.size);
    if (width, height) != (wide, high) {
        let name = task.name();
        let problem = format!("label of {name}: expected {wide} x {high} pixels, as its image, got {width} x {height}");
        let cure = match shown.turned && (width, height) == (high, wide) {
            true => "the image's Exif note turns it: label it as it is shown, or remove the note",
            false => "label the image at its own size",
        };
        return Err(Box::new((FaultKind::Size, Error::file(path, problem, cure))));
    }
    label.tensor().map_err(|error| Box::new((FaultKind::Unreadable, error)))
}
