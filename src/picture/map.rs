//! One task's map, label or prediction alike, as a picture.

use super::{class_colour, depth_colour};
use crate::sample::IGNORE;
use crate::task::TaskKind;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use image::{Rgb, RgbImage};

/// Which depths get the nearest and the farthest colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthRange {
    /// The nearest.
    pub near: f32,
    /// The farthest.
    pub far: f32,
}

impl DepthRange {
    /// The range of a map, ignored pixels left out.
    ///
    /// # Errors
    /// A map that cannot be copied from its device.
    pub fn of(map: &Tensor) -> Result<Self> {
        let values = map.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self::NONE.and(&values).or_unit())
    }

    /// Of no values yet.
    pub(crate) const NONE: Self = Self { near: f32::MAX, far: f32::MIN };

    /// With these values in it.
    pub(crate) fn and(self, values: &[f32]) -> Self {
        let valid = values.iter().filter(|v| **v != IGNORE && v.is_finite());
        valid.fold(self, |Self { near, far }, v| Self { near: near.min(*v), far: far.max(*v) })
    }

    /// 0 to 1 where the values were none, or all the same.
    pub(crate) fn or_unit(self) -> Self {
        if self.near < self.far { self } else { Self { near: 0.0, far: 1.0 } }
    }
}

/// Draws a map in label form: class indices in PASCAL's colours, normals as (n + 1) / 2, probabilities in grey, depth from yellow
/// (near) to violet. Ignored pixels are beige for classes and mid-grey for the others.
///
/// # Shapes
/// `map` `[c, H, W]` with c = 3 for normals and 1 otherwise.
///
/// # Errors
/// A map of another shape.
pub fn picture(kind: TaskKind, map: &Tensor, depths: Option<DepthRange>) -> Result<RgbImage> {
    let (c, h, w) = map.dims3()?;
    if c != kind.label_channels() {
        let expected = format!("[{}, H, W]", kind.label_channels());
        return Err(Error::Shape { what: format!("map of {}", kind.name()), expected, got: map.dims().to_vec() });
    }
    let values = map.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let range = match depths {
        Some(range) => range,
        None => DepthRange::of(map)?,
    };
    let pixel = |x: u32, y: u32| {
        let at = y as usize * w + x as usize;
        Rgb(colour(kind, std::array::from_fn(|i| values[at + i.min(c - 1) * h * w]), range))
    };
    Ok(RgbImage::from_fn(w as u32, h as u32, pixel))
}

/// The colour of a pixel; all but normals look at the first value alone.
pub(crate) fn colour(kind: TaskKind, pixel: [f32; 3], depths: DepthRange) -> [u8; 3] {
    let v = pixel[0];
    match kind {
        TaskKind::Semseg | TaskKind::HumanParts if v == IGNORE => [224, 224, 192],
        _ if v == IGNORE => [128; 3],
        TaskKind::Semseg | TaskKind::HumanParts => class_colour(v as u8),
        TaskKind::Normals => pixel.map(|v| unit_to_byte((v + 1.0) / 2.0)),
        TaskKind::Sal | TaskKind::Edge => [unit_to_byte(v); 3],
        TaskKind::Depth => depth_colour((v - depths.near) / (depths.far - depths.near)),
    }
}

/// An image `[3, H, W]` as a picture: floats from 0 to 1, or bytes from 0 to 255, as a [`Sample`](crate::Sample) holds it.
///
/// # Errors
/// An image of another shape.
pub fn photo_picture(image: &Tensor) -> Result<RgbImage> {
    let (c, h, w) = image.dims3()?;
    if c != 3 {
        let got = image.dims().to_vec();
        return Err(Error::Shape { what: "a photo".into(), expected: "[3, H, W]".into(), got });
    }
    let bytes = match image.dtype() {
        DType::U8 => image.flatten_all()?.to_vec1::<u8>()?,
        _ => {
            let values = image.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            values.into_iter().map(unit_to_byte).collect()
        }
    };
    let pixel = |x: u32, y: u32| {
        let at = y as usize * w + x as usize;
        Rgb(std::array::from_fn(|c| bytes[at + c * h * w]))
    };
    Ok(RgbImage::from_fn(w as u32, h as u32, pixel))
}

fn unit_to_byte(v: f32) -> u8 {
    (v.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_photo_of_one_channel_is_refused() -> Result<()> {
        let message = photo_picture(&Tensor::zeros((1, 2, 2), DType::F32, &Device::Cpu)?).unwrap_err().to_string();
        assert!(message.contains("[3, H, W]"), "{message}");
        Ok(())
    }

    /// Bytes were clamped to 0 to 1, and drawn white all over.
    #[test]
    fn a_photo_of_bytes_is_drawn_as_the_one_of_floats() -> Result<()> {
        let bytes = Tensor::new(&[0u8, 51, 102, 153, 204, 255], &Device::Cpu)?.reshape((3, 1, 2))?;
        let floats = (bytes.to_dtype(DType::F32)? / 255.0)?;
        let drawn: Vec<[u8; 3]> = photo_picture(&bytes)?.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(drawn, [[0, 102, 204], [51, 153, 255]]);
        assert_eq!(photo_picture(&floats)?, photo_picture(&bytes)?);
        Ok(())
    }

    #[test]
    fn each_kind_has_its_colours() -> Result<()> {
        let row = |values: &[f32]| Tensor::new(values, &Device::Cpu)?.reshape((1, 1, ()));
        let first = |kind, map: &Tensor| -> Result<Vec<[u8; 3]>> {
            Ok(picture(kind, map, None)?.pixels().map(|pixel| pixel.0).collect())
        };
        assert_eq!(first(TaskKind::Semseg, &row(&[1.0, 255.0])?)?, [[128, 0, 0], [224, 224, 192]]);
        assert_eq!(first(TaskKind::Edge, &row(&[0.0, 1.0])?)?, [[0; 3], [255; 3]]);
        assert_eq!(first(TaskKind::Depth, &row(&[2.0, 4.0, 255.0])?)?, [[253, 231, 37], [68, 1, 84], [128; 3]]);
        let up = Tensor::new(&[0f32, -1.0, 1.0], &Device::Cpu)?.reshape((3, 1, 1))?;
        assert_eq!(first(TaskKind::Normals, &up)?, [[128, 0, 255]]);
        assert!(picture(TaskKind::Normals, &row(&[1.0])?, None).unwrap_err().to_string().contains("[3, H, W]"));
        Ok(())
    }
}
