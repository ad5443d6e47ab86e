//! What is wrong with a sample: which part of it, of which kind, and in words.

use super::Sample;
use crate::Error;

/// Something that is wrong with a data set: the label of a task, or, where no task is named, an image or the set itself.
#[derive(Debug)]
pub struct Fault {
    /// The task whose label it is.
    pub task: Option<String>,
    /// Of which kind.
    pub kind: FaultKind,
    /// The file, what was expected, what came, and the cure.
    pub error: Error,
}

/// The kinds of faults, by which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A file that should be there is not.
    Missing,
    /// A file that no image has.
    Stray,
    /// A file that cannot be read or is damaged.
    Unreadable,
    /// A file of another form than the task's labels have, such as classes in RGB colours.
    Form,
    /// A label of another size than its image.
    Size,
    /// A value that the task does not have.
    Value,
    /// A normal that is no unit vector.
    Length,
}

impl FaultKind {
    /// What is wrong, in words: "files that cannot be read".
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "files that are missing",
            Self::Stray => "files that belong to no image",
            Self::Unreadable => "files that cannot be read",
            Self::Form => "files of another form",
            Self::Size => "labels of another size than their image",
            Self::Value => "labels with values that the task does not have",
            Self::Length => "normals that are no unit vectors",
        }
    }
}

impl Fault {
    /// A fault of the image, or of the set itself.
    pub fn of_image(kind: FaultKind, error: Error) -> Self {
        Self { task: None, kind, error }
    }

    /// A fault of a task's label.
    pub fn of_label(task: &str, kind: FaultKind, error: Error) -> Self {
        Self { task: Some(task.to_owned()), kind, error }
    }
}

/// What can be read of a sample, and what is wrong with the rest.
#[derive(Debug, Default)]
pub struct Examined {
    /// The image with those of its labels that can be read; none where the image cannot.
    pub sample: Option<Sample>,
    /// What is wrong, the image's first.
    pub faults: Vec<Fault>,
}
