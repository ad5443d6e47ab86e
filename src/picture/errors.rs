//! Where a prediction is wrong, and by how much.

use super::{Legend, Ramp};
use crate::sample::IGNORE;
use crate::task::TaskKind;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use image::{Rgb, RgbImage};

/// Of pixels that have no label.
const IGNORED: [u8; 3] = [150; 3];
const RIGHT: [u8; 3] = [236; 3];
const WRONG: [u8; 3] = [214, 39, 40];
/// Marked in the label and found.
const FOUND: [u8; 3] = [70; 3];
/// Marked in the label and not found.
const MISSED: [u8; 3] = [31, 119, 180];

/// The angle between normals that gets the brightest colour, in degrees.
const MOST_DEGREES: f32 = 60.0;
/// The share of the true depth that gets the brightest colour.
const MOST_SHARE: f32 = 0.5;

/// Draws where a prediction is wrong: wrong classes red; of masks, at a probability of 0.5, what is missed blue and what is found and is not
/// there red; the angle between normals; `|predicted - true| / true` of depths. Pixels without a label are grey.
///
/// # Shapes
/// Both maps in label form, `[c, H, W]` with c = 3 for normals and 1 otherwise.
///
/// # Errors
/// Maps of another shape than that, or than each other's.
pub fn error_picture(kind: TaskKind, predicted: &Tensor, label: &Tensor) -> Result<RgbImage> {
    let (_, h, w) = label.dims3()?;
    let expected = [kind.label_channels(), h, w];
    for (what, map) in [("label", label), ("prediction", predicted)] {
        if map.dims() != expected {
            let what = format!("{what} of {}", kind.name());
            return Err(Error::Shape { what, expected: format!("{expected:?}"), got: map.dims().to_vec() });
        }
    }
    let values = |map: &Tensor| map.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    let (predicted, label) = (values(predicted)?, values(label)?);
    let of = |values: &[f32], at: usize| std::array::from_fn(|c| values[at + c.min(expected[0] - 1) * h * w]);
    let pixel = |x: u32, y: u32| {
        let at = y as usize * w + x as usize;
        Rgb(colour(kind, of(&predicted, at), of(&label, at)))
    };
    Ok(RgbImage::from_fn(w as u32, h as u32, pixel))
}

/// What the colours of [`error_picture`] mean.
pub fn error_legend(kind: TaskKind) -> Legend {
    let ignored = ("no label", IGNORED);
    match kind {
        TaskKind::Semseg | TaskKind::HumanParts => {
            Legend::swatches("class errors", [("right", RIGHT), ("wrong", WRONG), ignored])
        }
        TaskKind::Sal | TaskKind::Edge => {
            let found = [("found", FOUND), ("missed", MISSED), ("not there", WRONG), ("rightly empty", RIGHT), ignored];
            Legend::swatches("mask errors", found)
        }
        TaskKind::Normals => Legend::bar("angle off", Ramp::Inferno, (0.0, MOST_DEGREES), "°"),
        TaskKind::Depth => Legend::bar("depth off", Ramp::Inferno, (0.0, 100.0 * MOST_SHARE), "%"),
    }
}

fn colour(kind: TaskKind, predicted: [f32; 3], label: [f32; 3]) -> [u8; 3] {
    if label[0] == IGNORE {
        return IGNORED;
    }
    match kind {
        TaskKind::Semseg | TaskKind::HumanParts => {
            if predicted[0] == label[0] {
                RIGHT
            } else {
                WRONG
            }
        }
        TaskKind::Sal | TaskKind::Edge => match (predicted[0] >= 0.5, label[0] >= 0.5) {
            (true, true) => FOUND,
            (false, true) => MISSED,
            (true, false) => WRONG,
            (false, false) => RIGHT,
        },
        TaskKind::Normals => Ramp::Inferno.colour(degrees(predicted, label) / MOST_DEGREES),
        TaskKind::Depth => {
            let share = (predicted[0] - label[0]).abs() / label[0].abs().max(f32::MIN_POSITIVE);
            Ramp::Inferno.colour(share / MOST_SHARE)
        }
    }
}

/// The angle between two vectors; that of one without a length is a right angle.
fn degrees(a: [f32; 3], b: [f32; 3]) -> f32 {
    let dot = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE);
    (dot(a, b) / lengths).clamp(-1.0, 1.0).acos().to_degrees()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn drawn(kind: TaskKind, predicted: &[f32], label: &[f32]) -> Result<Vec<[u8; 3]>> {
        let map = |values| Tensor::new(values, &Device::Cpu)?.reshape((kind.label_channels(), 1, ()));
        Ok(error_picture(kind, &map(predicted)?, &map(label)?)?.pixels().map(|pixel| pixel.0).collect())
    }

    #[test]
    fn each_kind_shows_its_errors_and_leaves_what_has_no_label() -> Result<()> {
        let classes = drawn(TaskKind::Semseg, &[1.0, 2.0, 3.0], &[1.0, 1.0, 255.0])?;
        assert_eq!(classes, [RIGHT, WRONG, IGNORED]);
        let mask = drawn(TaskKind::Sal, &[0.9, 0.1, 0.9, 0.1, 0.9], &[1.0, 1.0, 0.0, 0.0, 255.0])?;
        assert_eq!(mask, [FOUND, MISSED, WRONG, RIGHT, IGNORED]);
        let depth = drawn(TaskKind::Depth, &[2.0, 2.5, 9.0, 1.0], &[2.0, 2.0, 2.0, 255.0])?;
        assert_eq!(depth, [Ramp::Inferno.colour(0.0), Ramp::Inferno.colour(0.5), Ramp::Inferno.colour(1.0), IGNORED]);
        let normals = drawn(
            TaskKind::Normals,
            &[0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0, 1.0, 3f32.sqrt() / 2.0],
            &[0.0, 255.0, 0.0, 0.0, 255.0, 0.0, 1.0, 255.0, 1.0],
        )?;
        assert_eq!((normals[0], normals[1]), (Ramp::Inferno.colour(0.0), IGNORED));
        let half = Ramp::Inferno.colour(0.5);
        assert!(normals[2].iter().zip(half).all(|(got, want)| got.abs_diff(want) <= 4), "{:?}", normals[2]);
        Ok(())
    }

    #[test]
    fn maps_that_do_not_fit_are_refused() -> Result<()> {
        let map = |c: usize, w: usize| Tensor::zeros((c, 2, w), DType::F32, &Device::Cpu);
        let message = |kind, a: Tensor, b: Tensor| error_picture(kind, &a, &b).unwrap_err().to_string();
        assert!(
            message(TaskKind::Depth, map(1, 3)?, map(1, 4)?).contains("prediction of depth: expected shape [1, 2, 4]")
        );
        assert!(message(TaskKind::Normals, map(3, 3)?, map(1, 3)?).contains("label of normals"));
        Ok(())
    }
}
