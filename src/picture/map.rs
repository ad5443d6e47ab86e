//! One task's map, label or prediction alike, as a picture.

use super::colour::unit_to_byte;
use super::{Legend, Ramp, class_colour};
use crate::sample::{Classes, IGNORE};
use crate::task::TaskKind;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use image::{Rgb, RgbImage};
use std::collections::BTreeSet;

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

/// How the maps of a task are coloured, label and prediction alike.
///
/// Classes have PASCAL VOC's colours unless a data set has its own, normals are (n + 1) / 2 as red, green and blue, probabilities grey,
/// depths a [`Ramp`] whose upper end is the nearest. Ignored pixels are beige for classes and mid-grey for the others.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::TaskKind;
/// use tadformer::picture::MapColours;
/// use tadformer::sample::Classes;
/// let colours = MapColours::of(TaskKind::Semseg).classes(&Classes::new(["background", "cat", "dog"]));
/// let map = Tensor::new(&[[[0f32, 2.0], [2.0, 255.0]]], &Device::Cpu)?;
/// assert_eq!(colours.picture(&map)?.get_pixel(1, 0).0, [0, 128, 0]);
/// let legend = colours.legend("animals", [&map])?; // background, dog, no label
/// assert_eq!(legend.draw(300).width(), 300);
/// # Ok::<(), tadformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MapColours {
    kind: TaskKind,
    classes: Classes,
    depths: Option<DepthRange>,
    ramp: Ramp,
}

impl MapColours {
    /// Those of a kind of task; the range of depths is each map's own.
    pub fn of(kind: TaskKind) -> Self {
        Self { kind, classes: Classes::default(), depths: None, ramp: Ramp::Viridis }
    }

    /// With a data set's names, and its colours where it has some.
    pub fn classes(self, classes: &Classes) -> Self {
        Self { classes: classes.clone(), ..self }
    }

    /// With one range for the depths of several maps.
    pub fn depths(self, depths: DepthRange) -> Self {
        Self { depths: Some(depths), ..self }
    }

    /// With another ramp for depths.
    pub fn ramp(self, ramp: Ramp) -> Self {
        Self { ramp, ..self }
    }

    /// Draws a map in label form.
    ///
    /// # Shapes
    /// `map` `[c, H, W]` with c = 3 for normals and 1 otherwise.
    ///
    /// # Errors
    /// A map of another shape.
    pub fn picture(&self, map: &Tensor) -> Result<RgbImage> {
        let values = self.values(map)?;
        let (c, h, w) = map.dims3()?;
        let depths = self.range(&[&values]);
        let pixel = |x: u32, y: u32| {
            let at = y as usize * w + x as usize;
            Rgb(self.colour(std::array::from_fn(|i| values[at + i.min(c - 1) * h * w]), depths))
        };
        Ok(RgbImage::from_fn(w as u32, h as u32, pixel))
    }

    /// What the colours of these maps mean: of classes, those that appear in one of them.
    ///
    /// # Errors
    /// As [`MapColours::picture`].
    pub fn legend<'a>(&self, title: &str, maps: impl IntoIterator<Item = &'a Tensor>) -> Result<Legend> {
        let maps = maps.into_iter().map(|map| self.values(map)).collect::<Result<Vec<_>>>()?;
        Ok(match self.kind {
            TaskKind::Semseg | TaskKind::HumanParts => Legend::swatches(title, self.appearing(&maps)),
            TaskKind::Normals => Legend::swatches(title, self.directions()),
            TaskKind::Sal | TaskKind::Edge => Legend::bar(title, Ramp::Grey, (0.0, 1.0), ""),
            TaskKind::Depth => {
                let DepthRange { near, far } = self.range(&maps);
                Legend::bar(title, self.ramp, (far, near), "m")
            }
        })
    }

    /// The values of a map of this kind.
    fn values(&self, map: &Tensor) -> Result<Vec<f32>> {
        let channels = self.kind.label_channels();
        if !matches!(map.dims(), [c, _, _] if *c == channels) {
            let (what, expected) = (format!("map of {}", self.kind.name()), format!("[{channels}, H, W]"));
            return Err(Error::Shape { what, expected, got: map.dims().to_vec() });
        }
        Ok(map.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    /// The depths that the ramp spans: those that were given, or all that are there.
    fn range(&self, maps: &[impl AsRef<[f32]>]) -> DepthRange {
        let all = || maps.iter().fold(DepthRange::NONE, |range, map| range.and(map.as_ref())).or_unit();
        self.depths.unwrap_or_else(all)
    }

    /// The colour of a pixel; all but normals look at the first value alone.
    pub(crate) fn colour(&self, pixel: [f32; 3], depths: DepthRange) -> [u8; 3] {
        let v = pixel[0];
        match self.kind {
            TaskKind::Semseg | TaskKind::HumanParts => self.class_colour(v as u8),
            _ if v == IGNORE => [128; 3],
            TaskKind::Normals => pixel.map(|v| unit_to_byte((v + 1.0) / 2.0)),
            TaskKind::Sal | TaskKind::Edge => Ramp::Grey.colour(v),
            TaskKind::Depth => self.ramp.colour((v - depths.far) / (depths.near - depths.far)),
        }
    }

    fn class_colour(&self, class: u8) -> [u8; 3] {
        match class {
            UNKNOWN => [224, 224, 192],
            class => self.classes.colours.get(usize::from(class)).copied().unwrap_or_else(|| class_colour(class)),
        }
    }

    /// Names and colours of the classes that appear, in their order.
    fn appearing(&self, maps: &[Vec<f32>]) -> Vec<(String, [u8; 3])> {
        let classes: BTreeSet<u8> = maps.iter().flatten().map(|class| *class as u8).collect();
        let name = |class| match class {
            UNKNOWN => "no label".to_owned(),
            class => self.classes.name(usize::from(class)).into_owned(),
        };
        classes.into_iter().map(|class| (name(class), self.class_colour(class))).collect()
    }

    /// What the colours of normals point to, as who looks at the picture sees it.
    fn directions(&self) -> [(&'static str, [u8; 3]); 5] {
        let axes = [
            ("to the right", [1.0, 0.0, 0.0]),
            ("left", [-1.0, 0.0, 0.0]),
            ("up", [0.0, -1.0, 0.0]),
            ("down", [0.0, 1.0, 0.0]),
            ("towards you", [0.0, 0.0, 1.0]),
        ];
        axes.map(|(name, normal)| (name, self.colour(normal, DepthRange::NONE)))
    }
}

/// [`IGNORE`] as a class.
const UNKNOWN: u8 = IGNORE as u8;

/// Draws a map in label form with its kind's usual colours, those of [`MapColours::of`].
///
/// # Errors
/// As [`MapColours::picture`].
pub fn picture(kind: TaskKind, map: &Tensor, depths: Option<DepthRange>) -> Result<RgbImage> {
    MapColours { depths, ..MapColours::of(kind) }.picture(map)
}

/// Draws numbers `[H, W]` with a ramp between the two that its 0 and 1 stand for.
///
/// # Errors
/// Numbers of other than two dimensions.
pub fn ramp_picture(numbers: &Tensor, ramp: Ramp, (zero, one): (f32, f32)) -> Result<RgbImage> {
    let (h, w) = numbers.dims2()?;
    let values = numbers.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let span = if zero == one { 1.0 } else { one - zero };
    let pixel = |x: u32, y: u32| Rgb(ramp.colour((values[y as usize * w + x as usize] - zero) / span));
    Ok(RgbImage::from_fn(w as u32, h as u32, pixel))
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
        let depths = MapColours::of(TaskKind::Depth).depths(DepthRange { near: 0.0, far: 4.0 }).ramp(Ramp::Turbo);
        assert_eq!(depths.picture(&row(&[1.0])?)?.get_pixel(0, 0).0, Ramp::Turbo.colour(0.75));
        assert!(picture(TaskKind::Normals, &row(&[1.0])?, None).unwrap_err().to_string().contains("[3, H, W]"));
        Ok(())
    }

    #[test]
    fn a_data_sets_own_colours_and_names_stand_before_pascals() -> Result<()> {
        let classes = Classes { names: vec!["sky".into(), "road".into()], colours: vec![[1, 2, 3], [4, 5, 6]] };
        let colours = MapColours::of(TaskKind::Semseg).classes(&classes);
        let maps = [[1.0f32, 2.0], [255.0, 1.0]].map(|row| Tensor::new(&[[row]], &Device::Cpu));
        let [first, second] = maps.map(|map| map.unwrap().to_dtype(DType::U8).unwrap());
        let drawn: Vec<[u8; 3]> = colours.picture(&first)?.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(drawn, [[4, 5, 6], class_colour(2)]);
        let want = [("road", [4, 5, 6]), ("class 2", class_colour(2)), ("no label", [224, 224, 192])];
        assert_eq!(colours.legend("", [&first, &second])?, Legend::swatches("", want));
        Ok(())
    }

    #[test]
    fn a_bar_of_depths_runs_from_the_nearest_to_the_farthest_of_all_maps() -> Result<()> {
        let map = |values: &[f32]| Tensor::new(values, &Device::Cpu)?.reshape((1, 1, ()));
        let legend = MapColours::of(TaskKind::Depth).legend("depth", [&map(&[2.0, 255.0])?, &map(&[1.0, 4.0])?])?;
        assert_eq!(legend, Legend::bar("depth", Ramp::Viridis, (4.0, 1.0), "m"));
        Ok(())
    }

    #[test]
    fn numbers_that_are_all_alike_are_drawn() -> Result<()> {
        let alike = Tensor::full(3f32, (2, 2), &Device::Cpu)?;
        assert_eq!(ramp_picture(&alike, Ramp::Grey, (3.0, 3.0))?.get_pixel(1, 1).0, [0; 3]);
        assert_eq!(ramp_picture(&alike, Ramp::Grey, (4.0, 2.0))?.get_pixel(1, 1).0, [128; 3]);
        Ok(())
    }
}
