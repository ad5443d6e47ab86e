//! What the labels of one task hold.

use crate::data::labels::LENGTHS;
use crate::sample::{Classes, FaultKind, IGNORE};
use crate::{Task, TaskKind};
use candle_core::{DType, Result, Tensor};

/// What the labels of a task hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskContents {
    /// The task.
    pub task: Task,
    /// Images with a label.
    pub labelled: usize,
    /// Pixels of these labels.
    pub pixels: u64,
    /// Those of them of which something is known.
    pub known: u64,
    /// What is known.
    pub contents: Contents,
}

/// What is known, summed over a task's labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Contents {
    /// Of each class its name, its pixels, and the images that show it.
    Classes(Vec<(String, u64, usize)>),
    /// The pixels of a mask that are 1.
    Mask(u64),
    /// Unit vectors.
    Normals,
    /// The nearest depth, the farthest, and the sum, in metres; no pixel, no range.
    Depth(Option<(f32, f32)>, f64),
}

/// A value that the task does not have, in words.
type Wrong = (FaultKind, String);

impl TaskContents {
    /// Of no label yet.
    pub(super) fn new(task: &Task, classes: Option<&Classes>) -> Self {
        let unnamed = Classes::default();
        let names = classes.unwrap_or(&unnamed);
        let contents = match task.kind() {
            TaskKind::Semseg | TaskKind::HumanParts => {
                Contents::Classes((0..task.outputs()).map(|class| (names.name(class).into_owned(), 0, 0)).collect())
            }
            TaskKind::Sal | TaskKind::Edge => Contents::Mask(0),
            TaskKind::Normals => Contents::Normals,
            TaskKind::Depth => Contents::Depth(None, 0.0),
        };
        Self { task: task.clone(), labelled: 0, pixels: 0, known: 0, contents }
    }

    /// Counts one label `[c, H, W]`.
    pub(super) fn count(&mut self, label: &Tensor) -> std::result::Result<(), Wrong> {
        self.labelled += 1;
        let unreadable = |error: candle_core::Error| (FaultKind::Unreadable, error.to_string());
        match &mut self.contents {
            Contents::Classes(classes) => {
                let counts = histogram(label).map_err(unreadable)?;
                (self.pixels, self.known) = (counts.iter().sum(), counts[..255].iter().sum());
                for ((_, pixels, images), count) in classes.iter_mut().zip(&counts) {
                    (*pixels, *images) = (*pixels + count, *images + usize::from(*count > 0));
                }
                none_beyond(&counts, classes.len())
            }
            Contents::Mask(positive) => {
                let counts = histogram(label).map_err(unreadable)?;
                (self.pixels, self.known) = (counts.iter().sum(), counts[..255].iter().sum());
                *positive = counts[1];
                none_beyond(&counts, 2)
            }
            Contents::Normals => {
                let planes = floats(label).map_err(unreadable)?;
                (self.pixels, self.known) = (planes.len() as u64 / 3, known(&planes[..planes.len() / 3]));
                all_unit_vectors(&planes)
            }
            Contents::Depth(range, sum) => {
                let depths = floats(label).map_err(unreadable)?;
                (self.pixels, self.known) = (depths.len() as u64, known(&depths));
                let valid = || depths.iter().copied().filter(|v| *v != IGNORE);
                *range = valid().fold(None, |range, v| union(range, Some((v, v))));
                *sum = valid().map(f64::from).sum();
                match valid().find(|v| *v <= 0.0) {
                    Some(depth) => Err((FaultKind::Value, format!("expected depths above 0, got {depth}"))),
                    None => Ok(()),
                }
            }
        }
    }

    /// With other labels' counts.
    pub(super) fn add(&mut self, other: Self) {
        self.labelled += other.labelled;
        self.pixels += other.pixels;
        self.known += other.known;
        match (&mut self.contents, other.contents) {
            (Contents::Classes(classes), Contents::Classes(others)) => {
                for ((_, pixels, images), (_, more, in_more)) in classes.iter_mut().zip(others) {
                    (*pixels, *images) = (*pixels + more, *images + in_more);
                }
            }
            (Contents::Mask(positive), Contents::Mask(more)) => *positive += more,
            (Contents::Depth(range, sum), Contents::Depth(other, more)) => {
                (*range, *sum) = (union(*range, other), *sum + more);
            }
            _ => {}
        }
    }
}

/// How often each of 0 to 255 stands in a label; other numbers count as the class 254 that no task has beside 255.
fn histogram(label: &Tensor) -> Result<[u64; 256]> {
    let mut counts = [0; 256];
    let mut count = |value: u8| counts[usize::from(value)] += 1;
    match label.dtype() {
        DType::U8 => label.flatten_all()?.to_vec1::<u8>()?.into_iter().for_each(&mut count),
        _ => floats(label)?
            .into_iter()
            .for_each(|v| count(if v.fract() == 0.0 { v.clamp(0.0, 255.0) as u8 } else { 254 })),
    }
    Ok(counts)
}

fn floats(label: &Tensor) -> Result<Vec<f32>> {
    label.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()
}

fn known(values: &[f32]) -> u64 {
    values.iter().filter(|v| **v != IGNORE).count() as u64
}

fn union(a: Option<(f32, f32)>, b: Option<(f32, f32)>) -> Option<(f32, f32)> {
    match (a, b) {
        (Some((near, far)), Some((nearer, farther))) => Some((near.min(nearer), far.max(farther))),
        (range, None) | (None, range) => range,
    }
}

fn none_beyond(counts: &[u64; 256], classes: usize) -> std::result::Result<(), Wrong> {
    match (classes..255).find(|class| counts[*class] > 0) {
        None => Ok(()),
        Some(class) => {
            let pixels = counts[class];
            Err((FaultKind::Value, format!("expected 0 to {} or 255, got {class} in {pixels} pixels", classes - 1)))
        }
    }
}

/// Looks at every normal of three planes.
fn all_unit_vectors(planes: &[f32]) -> std::result::Result<(), Wrong> {
    let count = planes.len() / 3;
    for at in 0..count {
        let normal: [f32; 3] = std::array::from_fn(|c| planes[c * count + at]);
        let length = normal.iter().map(|v| v * v).sum::<f32>().sqrt();
        if normal[0] != IGNORE && !LENGTHS.contains(&length) {
            return Err((FaultKind::Length, format!("expected normals of length 1, got one of {length:.2}")));
        }
    }
    Ok(())
}
