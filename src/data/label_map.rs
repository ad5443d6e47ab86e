//! A label on its way from a published file to a sample: values, brought to the image's size, made a tensor.

use super::raster::{Planes, resize_cubic, resize_nearest};
use crate::sample::IGNORE;
use crate::{Error, Result};
use candle_core::{Device, Tensor, WithDType};
use std::path::Path;

/// Height and width.
pub(super) type Size = (usize, usize);

/// `[c, H, W]`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LabelMap<T> {
    pub(super) values: Vec<T>,
    pub(super) size: Size,
}

impl<T: Copy> LabelMap<T> {
    /// In this size, each pixel one of its own.
    pub(super) fn nearest(self, size: Size) -> Self {
        if self.size == size {
            return self;
        }
        Self { values: resize_nearest(Planes::new(&self.values, self.size), size), size }
    }

    pub(super) fn map<U>(self, of: impl FnMut(T) -> U) -> LabelMap<U> {
        LabelMap { values: self.values.into_iter().map(of).collect(), size: self.size }
    }
}

impl LabelMap<f32> {
    /// In this size, by the cubic.
    pub(super) fn cubic(self, size: Size) -> Self {
        if self.size == size {
            return self;
        }
        Self { values: resize_cubic(Planes::new(&self.values, self.size), size), size }
    }

    /// Pixels whose values are all exactly 0 are unknown: what the published files mean by it.
    pub(super) fn unknown_where_0(mut self) -> Self {
        let pixels = self.size.0 * self.size.1;
        for at in 0..pixels {
            if self.values.iter().skip(at).step_by(pixels).all(|value| *value == 0.0) {
                self.values.iter_mut().skip(at).step_by(pixels).for_each(|value| *value = IGNORE);
            }
        }
        self
    }
}

impl<T: WithDType> LabelMap<T> {
    pub(super) fn tensor(self) -> Result<Tensor> {
        let (height, width) = self.size;
        let channels = self.values.len() / (height * width);
        Ok(Tensor::from_vec(self.values, (channels, height, width), &Device::Cpu)?)
    }
}

/// A pixel, by its place in a map of this width, that holds a value which the label does not have.
pub(super) fn wrong_value(path: &Path, expected: &str, got: impl ToString, at: usize, width: usize) -> Error {
    let (x, y) = (at % width, at / width);
    let problem = format!("expected {expected}, got {} at column {x}, row {y}", got.to_string());
    Error::file(path, problem, "take the file as it was published")
}

/// Refuses a map with a value that is none of these.
pub(super) fn check_values<T: Copy + ToString>(
    path: &Path,
    map: &LabelMap<T>,
    expected: &str,
    is_one: impl Fn(T) -> bool,
) -> Result<()> {
    match map.values.iter().position(|value| !is_one(*value)) {
        None => Ok(()),
        Some(at) => {
            let (height, width) = map.size;
            Err(wrong_value(path, expected, map.values[at], at % (height * width), width))
        }
    }
}
