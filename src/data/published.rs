//! A sample of a published data set: its image, and of each task the label or what is wrong with it.

use super::PIXEL_LIMIT;
use super::label_map::Size;
use super::labels::of_task;
use super::photos::{byte_image, decode_photo};
use crate::sample::{Examined, Fault, FaultKind, Sample};
use crate::{Error, Result, Task, TaskSet};
use candle_core::Tensor;
use std::path::Path;

/// An image that could be read, and what came of reading its labels; none where a label's file is missing.
pub(super) struct Published<'a> {
    image: Tensor,
    labels: Vec<(&'a Task, Result<Option<Tensor>>)>,
}

impl<'a> Published<'a> {
    /// Reads an image, the way up that its file stores it, and asks for each task's label in its size.
    pub(super) fn read(
        photo: &Path,
        tasks: &'a TaskSet,
        label: impl Fn(&Task, Size) -> Result<Option<Tensor>>,
    ) -> Result<Self> {
        let (photo, _) = decode_photo(photo, PIXEL_LIMIT)?;
        let size = (photo.height() as usize, photo.width() as usize);
        let labels = tasks.iter().map(|task| (task, label(task, size).map_err(of_task(task)))).collect();
        Ok(Self { image: byte_image(&photo)?, labels })
    }

    /// The sample, or the first thing that is wrong with it.
    pub(super) fn sample(self) -> Result<Sample> {
        let labels = self.labels.into_iter().filter_map(|(task, label)| Some((task.name(), label.transpose()?)));
        let labels = labels.map(|(name, label)| Ok((name, label?))).collect::<Result<Vec<_>>>()?;
        Sample::new(self.image, labels)
    }

    /// What can be read, and all that is wrong with the rest.
    fn examined(self) -> Examined {
        let (mut known, mut faults) = (Vec::new(), Vec::new());
        for (task, label) in self.labels {
            match label {
                Ok(label) => known.extend(label.map(|label| (task.name(), label))),
                Err(error) => faults.push(Fault::of_label(task.name(), FaultKind::Unreadable, error)),
            }
        }
        let sample = Sample::new(self.image, known).map_err(|error| faults.insert(0, unreadable(error))).ok();
        Examined { sample, faults }
    }

    /// [`Published::examined`] of what may have no image.
    pub(super) fn examine(read: Result<Self>) -> Examined {
        match read {
            Ok(published) => published.examined(),
            Err(error) => Examined { sample: None, faults: vec![unreadable(error)] },
        }
    }
}

fn unreadable(error: Error) -> Fault {
    Fault::of_image(FaultKind::Unreadable, error)
}
