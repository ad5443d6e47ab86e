//! Label files: a NumPy array as a task's label.

use super::labels::{LENGTHS, Refusal, unreadable};
use super::npy::{NpyMap, read_npy};
use crate::sample::{FaultKind, IGNORE};
use crate::{Error, Task, TaskKind};
use candle_core::{Device, Tensor};
use std::path::Path;

/// How an array stores a label: see [`FolderDescription`](super::FolderDescription).
#[derive(Clone, Copy, Debug)]
pub(super) struct ArrayForm {
    /// A number of classes and masks that is ignored, as 255 always is.
    pub ignore: Option<u8>,
    /// The metres that a stored depth of 1 stands for.
    pub metres: f64,
}

/// The label `[c, H, W]` in a `.npy` file.
pub(super) fn examine_array(path: &Path, task: &Task, form: ArrayForm) -> Result<Tensor, Refusal> {
    let map = read_npy(path).map_err(|error| unreadable(error, task))?;
    let (channels, shape) = (task.kind().label_channels(), (map.channels, map.height, map.width));
    let file = File { path, task, map };
    if file.map.channels != channels {
        let expected = if channels == 3 { "H x W x 3" } else { "H x W" };
        let problem = format!("expected {expected} numbers, got {channels} a pixel", channels = file.map.channels);
        return Err(file.refuse(FaultKind::Form, &problem, "save it with numpy.save in that shape"));
    }
    let tensor = match task.kind() {
        TaskKind::Semseg | TaskKind::HumanParts => file.numbers(task.outputs(), form.ignore).map(|v| bytes(v, shape)),
        TaskKind::Sal | TaskKind::Edge => file.numbers(2, form.ignore).map(|v| bytes(v, shape)),
        TaskKind::Normals => file.normals().map(|v| floats(v, shape)),
        TaskKind::Depth => file.depths(form.metres).map(|v| floats(v, shape)),
    }?;
    tensor.map_err(|error| unreadable(error.into(), task))
}

fn bytes(values: Vec<u8>, shape: (usize, usize, usize)) -> candle_core::Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn floats(values: Vec<f32>, shape: (usize, usize, usize)) -> candle_core::Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// An array that is to be a task's label.
struct File<'a> {
    path: &'a Path,
    task: &'a Task,
    map: NpyMap,
}

impl File<'_> {
    /// Whole numbers below `count`, or what is ignored.
    fn numbers(&self, count: usize, ignore: Option<u8>) -> Result<Vec<u8>, Refusal> {
        let unknown = |v: f32| v == IGNORE || ignore.is_some_and(|ignore| v == f32::from(ignore));
        let number = |(at, v): (usize, &f32)| match *v {
            v if unknown(v) => Ok(IGNORE as u8),
            v if v.fract() == 0.0 && v >= 0.0 && (v as usize) < count => Ok(v as u8),
            v => {
                let expected = format!("0 to {} or {}", count - 1, ignore.unwrap_or(IGNORE as u8));
                let cure = "number from 0, and store 255 where nothing is known";
                Err(self.value(FaultKind::Value, &expected, &v.to_string(), at, cure))
            }
        };
        self.map.values.iter().enumerate().map(number).collect()
    }

    /// As they are stored; three zeros, or one that is no number, are unknown.
    fn normals(&self) -> Result<Vec<f32>, Refusal> {
        let (count, mut values) = (self.map.height * self.map.width, self.map.values.clone());
        for at in 0..count {
            let normal: [f32; 3] = std::array::from_fn(|c| values[c * count + at]);
            let length = normal.iter().map(|v| v * v).sum::<f32>().sqrt();
            if length == 0.0 || length.is_nan() || normal == [IGNORE; 3] {
                (0..3).for_each(|c| values[c * count + at] = IGNORE);
            } else if !LENGTHS.contains(&length) {
                let (expected, got) = ("a vector of length 1", format!("one of {length:.2}"));
                let cure = "store unit normals, and 0 0 0 where nothing is known";
                return Err(self.value(FaultKind::Length, expected, &got, at, cure));
            }
        }
        Ok(values)
    }

    /// In metres; 0, and what is no number, is unknown.
    fn depths(&self, metres: f64) -> Result<Vec<f32>, Refusal> {
        let depth = |(at, v): (usize, &f32)| match *v {
            v if v == 0.0 || v.is_nan() || v == IGNORE => Ok(IGNORE),
            v if v > 0.0 && v.is_finite() => Ok((f64::from(v) * metres) as f32),
            v => {
                let cure = "store depths along the camera's axis, and 0 where nothing is known";
                Err(self.value(FaultKind::Value, "a depth above 0", &v.to_string(), at, cure))
            }
        };
        self.map.values.iter().enumerate().map(depth).collect()
    }

    fn value(&self, kind: FaultKind, expected: &str, got: &str, at: usize, cure: &str) -> Refusal {
        let (x, y) = (at % self.map.width, at / self.map.width);
        self.refuse(kind, &format!("expected {expected}, got {got} at column {x}, row {y}"), cure)
    }

    fn refuse(&self, kind: FaultKind, problem: &str, cure: &str) -> Refusal {
        let problem = format!("label of {}: {problem}", self.task.name());
        Box::new((kind, Error::file(self.path, problem, cure)))
    }
}
