//! A label as bytes, and the tensor that is made of them.

use super::raster::{Planes, gather, nearest_of};
use crate::sample::IGNORE;
use crate::{Error, Result, TaskKind};
use candle_core::{Device, Tensor};

/// A label as it is stored, checked to hold only values that its task has: a byte a pixel, three for normals and two for depth.
///
/// A tensor of it takes four bytes a value; so crop and resize before you make one.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    kind: TaskKind,
    width: usize,
    height: usize,
    /// Row by row: classes; 0, 128 or 255; red, green and blue of a normal; a depth's high byte and its low one.
    pixels: Vec<u8>,
    /// The metres that a stored depth of 1 stands for.
    metres: f64,
}

impl Label {
    /// Of values that have been looked at.
    pub(super) fn of_pixels(kind: TaskKind, (width, height): (usize, usize), pixels: Vec<u8>, metres: f64) -> Self {
        Self { kind, width, height, pixels, metres }
    }

    /// Width and height, as of an image.
    pub fn dimensions(&self) -> (u32, u32) {
        // As a PNG's header has them, or a caller.
        (self.width as u32, self.height as u32)
    }

    /// The part of this width and height whose upper left pixel lies in column `x`, row `y`.
    ///
    /// # Errors
    /// A part without a pixel, or that reaches over the border.
    pub fn crop(&self, x: u32, y: u32, width: u32, height: u32) -> Result<Self> {
        let inside =
            |from: u32, length: u32, whole: usize| length > 0 && u64::from(from) + u64::from(length) <= whole as u64;
        if !inside(x, width, self.width) || !inside(y, height, self.height) {
            let expected = format!("a part of {} x {} pixels", self.width, self.height);
            let got = format!("{width} x {height} from column {x}, row {y}");
            return Err(Error::config("crop", expected, got, "crop the photo in the same way"));
        }
        let part = |from: u32, length: u32| (from as usize..from as usize + length as usize).collect();
        Ok(self.gathered(part(x, width), part(y, height)))
    }

    /// The label in this size, each pixel the nearest one's: classes do not mix, nor do depths across an edge.
    ///
    /// # Errors
    /// A side of 0.
    pub fn resize(&self, width: u32, height: u32) -> Result<Self> {
        if width == 0 || height == 0 {
            let got = format!("{width} x {height}");
            return Err(Error::config("size of a label", "sides of at least 1", got, "give the photo's size"));
        }
        Ok(self.gathered(nearest_of(self.width, width as usize), nearest_of(self.height, height as usize)))
    }

    /// The label as [`Sample`](crate::Sample) holds it.
    ///
    /// # Shapes
    /// `[c, H, W]` on the CPU, c = 3 for normals and 1 otherwise, [`IGNORE`] where nothing is known: u8 for classes and masks, f32 for
    /// normals and depth.
    ///
    /// # Errors
    /// None in practice; candle's are passed on.
    pub fn tensor(&self) -> Result<Tensor> {
        let shape = (self.kind.label_channels(), self.height, self.width);
        let bytes = |pixels: Vec<u8>| Tensor::from_vec(pixels, shape, &Device::Cpu);
        let floats = |values: Vec<f32>| Tensor::from_vec(values, shape, &Device::Cpu);
        Ok(match self.kind {
            TaskKind::Semseg | TaskKind::HumanParts => bytes(self.pixels.clone()),
            TaskKind::Sal | TaskKind::Edge => bytes(self.pixels.iter().map(|level| of_level(*level)).collect()),
            TaskKind::Depth => floats(self.depths()),
            TaskKind::Normals => floats(planes(self.pixels.as_chunks().0)),
        }?)
    }

    /// The pixels that stand at these columns and rows.
    fn gathered(&self, columns: Vec<usize>, rows: Vec<usize>) -> Self {
        let pixels = match self.kind {
            TaskKind::Semseg | TaskKind::HumanParts | TaskKind::Sal | TaskKind::Edge => {
                gather(self.planes(&self.pixels), &columns, &rows)
            }
            TaskKind::Depth => gather(self.planes(self.pixels.as_chunks::<2>().0), &columns, &rows).into_flattened(),
            TaskKind::Normals => gather(self.planes(self.pixels.as_chunks::<3>().0), &columns, &rows).into_flattened(),
        };
        Self { kind: self.kind, width: columns.len(), height: rows.len(), pixels, metres: self.metres }
    }

    /// Metres; where 0 is stored, nothing is known.
    fn depths(&self) -> Vec<f32> {
        let metres = |bytes: &[u8; 2]| match u16::from_be_bytes(*bytes) {
            0 => IGNORE,
            stored => (f64::from(stored) * self.metres) as f32,
        };
        self.pixels.as_chunks().0.iter().map(metres).collect()
    }

    fn planes<'a, T>(&self, pixels: &'a [T]) -> Planes<'a, T> {
        Planes::new(pixels, (self.height, self.width))
    }
}

fn of_level(level: u8) -> u8 {
    match level {
        0 => 0,
        255 => 1,
        _ => IGNORE as u8,
    }
}

/// Unit normals, each channel a plane of its own.
fn planes(pixels: &[[u8; 3]]) -> Vec<f32> {
    let mut planes = vec![IGNORE; 3 * pixels.len()];
    for (at, pixel) in pixels.iter().enumerate() {
        if let Some((normal, length)) = normal(*pixel) {
            (0..3).for_each(|c| planes[c * pixels.len() + at] = normal[c] / length);
        }
    }
    planes
}

/// The vector that a colour stands for, and its length; none for black and mid-grey.
pub(super) fn normal(pixel: [u8; 3]) -> Option<([f32; 3], f32)> {
    if pixel == [0; 3] || pixel.iter().all(|v| (127..=128).contains(v)) {
        return None;
    }
    let normal = pixel.map(|v| f32::from(v) / 127.5 - 1.0);
    Some((normal, normal.iter().map(|v| v * v).sum::<f32>().sqrt()))
}
