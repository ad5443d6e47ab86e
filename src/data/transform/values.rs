//! The values of an image or a label while it is transformed.

use crate::Result;
use crate::data::raster::{Planes, Warp, gather, pad, resize_nearest};
use candle_core::{DType, Device, Tensor};
use std::borrow::Cow;

/// Planes of bytes or floats, as a sample's tensors hold them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Values {
    pub fn of(map: &Tensor) -> Result<Self> {
        let flat = map.flatten_all()?;
        Ok(match flat.dtype() {
            DType::U8 => Self::Bytes(flat.to_vec1()?),
            _ => Self::Floats(flat.to_vec1()?),
        })
    }

    pub fn tensor(self, shape: (usize, usize, usize)) -> Result<Tensor> {
        Ok(match self {
            Self::Bytes(values) => Tensor::from_vec(values, shape, &Device::Cpu),
            Self::Floats(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        }?)
    }

    pub fn floats(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Bytes(values) => values.iter().map(|value| f32::from(*value)).collect(),
            Self::Floats(values) => values.into(),
        }
    }

    /// Makes other floats of the values.
    pub fn update(&mut self, make: impl FnOnce(Vec<f32>) -> Vec<f32>) {
        let floats = match std::mem::replace(self, Self::Floats(Vec::new())) {
            Self::Bytes(values) => values.into_iter().map(f32::from).collect(),
            Self::Floats(values) => values,
        };
        *self = Self::Floats(make(floats));
    }

    /// Changes the values, as floats.
    pub fn change(&mut self, change: impl FnOnce(&mut [f32])) {
        self.update(|mut values| {
            change(&mut values);
            values
        });
    }

    /// Whether any value is what is asked for.
    pub fn any(&self, holds: impl Fn(f32) -> bool) -> bool {
        match self {
            Self::Bytes(values) => values.iter().any(|value| holds(f32::from(*value))),
            Self::Floats(values) => values.iter().any(|value| holds(*value)),
        }
    }

    pub fn fill(&mut self, with: u8) {
        match self {
            Self::Bytes(values) => values.fill(with),
            Self::Floats(values) => values.fill(f32::from(with)),
        }
    }

    pub fn gathered(&self, size: (usize, usize), columns: &[usize], rows: &[usize]) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(gather(Planes::new(values, size), columns, rows)),
            Self::Floats(values) => Self::Floats(gather(Planes::new(values, size), columns, rows)),
        }
    }

    /// In another size, each pixel the nearest one's.
    pub fn resized(&self, size: (usize, usize), to: (usize, usize)) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(resize_nearest(Planes::new(values, size), to)),
            Self::Floats(values) => Self::Floats(resize_nearest(Planes::new(values, size), to)),
        }
    }

    /// Each pixel the nearest one's.
    pub fn warped(&self, size: (usize, usize), warp: &Warp, outside: u8) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(warp.nearest(Planes::new(values, size), outside)),
            Self::Floats(values) => Self::Floats(warp.nearest(Planes::new(values, size), f32::from(outside))),
        }
    }

    /// `fill` has a value for each channel; bytes are the nearest ones.
    pub fn padded(&self, size: (usize, usize), to: (usize, usize), fill: &[f32]) -> Self {
        match self {
            Self::Bytes(values) => {
                let fill: Vec<u8> = fill.iter().map(|value| value.round() as u8).collect();
                Self::Bytes(pad(Planes::new(values, size), to, &fill))
            }
            Self::Floats(values) => Self::Floats(pad(Planes::new(values, size), to, fill)),
        }
    }
}
