//! A sample while it is transformed: plain values, whose sizes agree.

use super::values::Values;
use crate::sample::IGNORE;
use crate::{Error, Result, Sample, TaskKind, TaskSet};
use std::collections::BTreeMap;

/// An image and its labels, all of one size.
#[derive(Debug)]
pub(super) struct Canvas {
    pub height: usize,
    pub width: usize,
    pub image: Image,
    pub labels: Vec<LabelMap>,
}

/// Red, green and blue planes.
#[derive(Debug)]
pub(super) struct Image {
    pub values: Values,
    /// The value of full brightness: 255 of bytes and of what was computed from bytes, 1 of a sample's floats.
    pub white: f32,
}

/// A label with what a transform has to know of its task. Normals and depths are floats.
#[derive(Debug)]
pub(super) struct LabelMap {
    pub name: String,
    pub kind: TaskKind,
    pub values: Values,
}

impl Canvas {
    pub fn of(sample: Sample, tasks: &TaskSet) -> Result<Self> {
        let sample = sample.checked()?;
        let (_, height, width) = sample.image.dims3()?;
        if height * width == 0 {
            let expected = "[3, H, W], H and W at least 1".into();
            return Err(Error::Shape { what: "image".into(), expected, got: vec![3, height, width] });
        }
        let values = Values::of(&sample.image)?;
        let white = if matches!(values, Values::Bytes(_)) { 255.0 } else { 1.0 };
        let mut labels = Vec::with_capacity(sample.labels.len());
        for (name, label) in sample.labels {
            let Some(task) = tasks.get(&name) else {
                let cure = "name the label as the data set's task is named";
                return Err(Error::config("label", format!("one of the data set's tasks, {tasks}"), name, cure));
            };
            let channels = task.kind().label_channels();
            if label.dims() != [channels, height, width] {
                let (what, expected) = (format!("label `{name}`"), format!("[{channels}, {height}, {width}]"));
                return Err(Error::Shape { what, expected, got: label.dims().into() });
            }
            let mut values = Values::of(&label)?;
            if matches!(task.kind(), TaskKind::Normals | TaskKind::Depth) {
                values.update(|floats| floats);
            }
            labels.push(LabelMap { name, kind: task.kind(), values });
        }
        Ok(Self { height, width, image: Image { values, white }, labels })
    }

    pub fn into_sample(self) -> Result<Sample> {
        let (height, width) = self.size();
        let image = self.image.in_range().tensor((3, height, width))?;
        let label = |label: LabelMap| {
            let shape = (label.kind.label_channels(), height, width);
            Ok((label.name, label.values.tensor(shape)?))
        };
        Ok(Sample { image, labels: self.labels.into_iter().map(label).collect::<Result<BTreeMap<_, _>>>()? })
    }

    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Whole pixels of image and labels, by columns and rows.
    pub fn gather(&mut self, columns: &[usize], rows: &[usize]) {
        let size = self.size();
        self.image.values = self.image.values.gathered(size, columns, rows);
        for label in &mut self.labels {
            label.values = label.values.gathered(size, columns, rows);
        }
        (self.height, self.width) = (rows.len(), columns.len());
    }

    pub fn pad(&mut self, to: (usize, usize), image: [f32; 3]) {
        let size = self.size();
        self.image.values = self.image.values.padded(size, to, &image.map(|share| share * self.image.white));
        for label in &mut self.labels {
            label.values = label.values.padded(size, to, &vec![IGNORE; label.kind.label_channels()]);
        }
        (self.height, self.width) = to;
    }

    /// The labels of a kind.
    pub fn labels_of(&mut self, kind: TaskKind) -> impl Iterator<Item = &mut Values> {
        self.labels.iter_mut().filter(move |label| label.kind == kind).map(|label| &mut label.values)
    }
}

impl Image {
    /// As a sample has it: bytes, or floats from 0 to 1.
    fn in_range(self) -> Values {
        match self.values {
            Values::Bytes(values) => Values::Bytes(values),
            Values::Floats(values) => {
                let white = self.white;
                Values::Floats(values.into_iter().map(|value| (value / white).clamp(0.0, 1.0)).collect())
            }
        }
    }

    /// The image in bytes: what lies between two is cut off, what is out of range is black or full.
    pub fn truncate(&mut self) {
        if let Values::Floats(values) = &self.values {
            let scale = 255.0 / self.white;
            self.values = Values::Bytes(values.iter().map(|value| (value * scale) as u8).collect());
            self.white = 255.0;
        }
    }
}
