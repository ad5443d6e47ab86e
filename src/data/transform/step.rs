//! The steps that a sample can be taken through, and the sizes that they may have.

use super::canvas::Canvas;
use super::choices::{Outside, Place, Scale, Shrink, between, check_range, within};
use super::colour::{Amounts, change};
use super::geometry;
use super::normals;
use crate::data::pixel_limit::{LONGEST_SIDE, PIXEL_LIMIT};
use crate::named::alone;
use crate::sample::{IGNORE, IMAGENET_MEAN};
use crate::{Error, Result, TaskKind};
use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// One step on an image and all its labels together.
///
/// Images and normals are interpolated by a cubic (a = -0.75, as OpenCV's); every other label takes whole pixels, so that no class and
/// no depth is invented. In files a step is tagged by its `kind`: `{"kind": "flip", "probability": 0.5}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Transform {
    /// Left and right exchanged; the x of normals is negated.
    Flip {
        /// Of being flipped, 0 to 1.
        probability: f64,
    },
    /// Turned and scaled about the centre, in the same size. Normals turn with the image, depths are divided by the scale. Pixels that
    /// come from outside the image are black, of normals and depth unknown, and of the other labels what `outside` says. Along edges
    /// normals get shorter than 1, until [`Transform::Resize`] or [`Transform::UnitNormals`].
    Warp {
        /// Least and largest angle, counter-clockwise as seen, -180 to 180.
        degrees: [f64; 2],
        /// How much larger things become.
        scale: Scale,
        /// What is known of pixels from outside the image.
        #[serde(default)]
        outside: Outside,
    },
    /// In this size, the aspect not kept; normals are given length 1.
    Resize {
        /// Rows of the result.
        height: usize,
        /// Columns of the result.
        width: usize,
        /// How an image is made smaller.
        #[serde(default)]
        shrink: Shrink,
    },
    /// A part of this size; an image that is smaller is an error.
    Crop {
        /// Rows of the part.
        height: usize,
        /// Columns of the part.
        width: usize,
        /// Where it lies.
        place: Place,
    },
    /// At least this size: what is missing on the right and below is ImageNet's mean colour, and unknown in the labels.
    Pad {
        /// Least number of rows.
        height: usize,
        /// Least number of columns.
        width: usize,
    },
    /// Colours changed as torchvision's `ColorJitter` does, in a random order: brightness, contrast and saturation by factors of
    /// 1 - x to 1 + x, never below 0, the hue by at most this share of the circle either way.
    ColourJitter {
        /// 0 to 10.
        brightness: f64,
        /// 0 to 10.
        contrast: f64,
        /// 0 to 10.
        saturation: f64,
        /// 0 to 0.5.
        hue: f64,
    },
    /// The image cut to bytes, 12.9 to 12, as the released code casts it; what lies below 0 or above 255 is made 0 or 255, where that
    /// code wraps it round. Meant for images that were bytes before they were interpolated.
    #[serde(deserialize_with = "alone")]
    Truncate,
    /// A map of human parts without any part is unknown everywhere, as the released code has it: after the steps that move pixels.
    #[serde(deserialize_with = "alone")]
    IgnoreAbsentParts,
    /// Normals of length 1, after a [`Transform::Warp`] that no [`Transform::Resize`] follows.
    #[serde(deserialize_with = "alone")]
    UnitNormals,
}

impl Transform {
    /// Checks the numbers; `place` is where the step stands in a configuration.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        match self {
            Self::Flip { probability } => within(place, "probability", *probability, [0.0, 1.0]),
            Self::Warp { degrees, scale, .. } => {
                check_range(place, "degrees", *degrees, [-180.0, 180.0])?;
                scale.check(place)
            }
            Self::Resize { height, width, .. } | Self::Crop { height, width, .. } | Self::Pad { height, width } => {
                check_size(place, *height, *width)
            }
            Self::ColourJitter { brightness, contrast, saturation, hue } => {
                within(place, "brightness", *brightness, [0.0, 10.0])?;
                within(place, "contrast", *contrast, [0.0, 10.0])?;
                within(place, "saturation", *saturation, [0.0, 10.0])?;
                within(place, "hue", *hue, [0.0, 0.5])
            }
            Self::Truncate | Self::IgnoreAbsentParts | Self::UnitNormals => Ok(()),
        }
    }

    /// Draws what the step leaves open, and takes it.
    pub(super) fn apply(&self, canvas: &mut Canvas, rng: &mut StdRng) -> Result<()> {
        match self {
            Self::Flip { probability } => {
                if rng.random::<f64>() < *probability {
                    geometry::flip(canvas);
                }
            }
            Self::Warp { degrees, scale, outside } => {
                let (degrees, scale) = (between(*degrees, rng), scale.draw(rng));
                geometry::warp(canvas, degrees, scale, *outside);
            }
            Self::Resize { height, width, shrink } => geometry::resize(canvas, (*height, *width), *shrink),
            Self::Crop { height, width, place } => crop(canvas, (*height, *width), *place, rng)?,
            Self::Pad { height, width } => {
                canvas.pad(((*height).max(canvas.height), (*width).max(canvas.width)), IMAGENET_MEAN);
            }
            Self::ColourJitter { brightness, contrast, saturation, hue } => {
                let (brightness, contrast, saturation, hue) = (*brightness, *contrast, *saturation, *hue);
                let changes = Amounts { brightness, contrast, saturation, hue }.draw(rng);
                changes.into_iter().for_each(|by| change(&mut canvas.image, by));
            }
            Self::Truncate => canvas.image.truncate(),
            Self::IgnoreAbsentParts => {
                let is_part = |value| value != 0.0 && value != IGNORE;
                let absent = canvas.labels_of(TaskKind::HumanParts).filter(|values| !values.any(is_part));
                absent.for_each(|values| values.fill(IGNORE as u8));
            }
            Self::UnitNormals => {
                canvas.labels_of(TaskKind::Normals).for_each(|values| values.change(normals::unit));
            }
        }
        Ok(())
    }
}

fn crop(canvas: &mut Canvas, (height, width): (usize, usize), place: Place, rng: &mut StdRng) -> Result<()> {
    if height > canvas.height || width > canvas.width {
        let expected = format!("an image of at least {height} x {width} (height x width)");
        let got = format!("{} x {}", canvas.height, canvas.width);
        return Err(Error::config("crop", expected, got, "put a `pad` or `resize` step before it"));
    }
    let mut part = |whole: usize, length: usize| -> Vec<usize> {
        let from = match place {
            Place::Random => rng.random_range(0..=whole - length),
            Place::Centre => (whole - length) / 2,
        };
        (from..from + length).collect()
    };
    let (rows, columns) = (part(canvas.height, height), part(canvas.width, width));
    canvas.gather(&columns, &rows);
    Ok(())
}

fn check_size(place: &str, height: usize, width: usize) -> Result<()> {
    let sides = 1..=LONGEST_SIDE as usize;
    if sides.contains(&height) && sides.contains(&width) && (height as u64) * (width as u64) <= PIXEL_LIMIT {
        return Ok(());
    }
    let expected = format!("1 to {LONGEST_SIDE} a side, at most {PIXEL_LIMIT} pixels");
    Err(Error::config(format!("{place}: height x width"), expected, format!("{height} x {width}"), "such as 448 x 448"))
}
