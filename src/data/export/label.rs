//! A label as the file that [`read_label`](crate::data::read_label) reads it from.

use super::encoded::PngFile;
use crate::sample::{Classes, IGNORE};
use crate::{Error, Result, Task, TaskKind};
use candle_core::{DType, Tensor};
use png::{BitDepth, ColorType};

/// The colour of what is ignored, VOC's.
const UNKNOWN: [u8; 3] = [224, 224, 192];

/// The file of a label `[c, H, W]`.
///
/// # Errors
/// A label of another shape; a value that the task does not have, or that the file cannot hold.
pub(super) fn file(task: &Task, label: &Tensor, classes: &Classes) -> Result<PngFile> {
    let (c, h, w) = label.dims3()?;
    if c != task.kind().label_channels() {
        let (what, expected) =
            (format!("label of {}", task.name()), format!("[{}, H, W]", task.kind().label_channels()));
        return Err(Error::Shape { what, expected, got: label.dims().to_vec() });
    }
    let values = label.permute((1, 2, 0))?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (colour, depth) = match task.kind() {
        TaskKind::Semseg | TaskKind::HumanParts => (ColorType::Indexed, BitDepth::Eight),
        TaskKind::Sal | TaskKind::Edge => (ColorType::Grayscale, BitDepth::Eight),
        TaskKind::Normals => (ColorType::Rgb, BitDepth::Eight),
        TaskKind::Depth => (ColorType::Grayscale, BitDepth::Sixteen),
    };
    let bytes = match task.kind() {
        TaskKind::Semseg | TaskKind::HumanParts => each(task, &values, |v| class(v, task.outputs()).map(|v| [v])),
        TaskKind::Sal | TaskKind::Edge => each(task, &values, |v| level(v).map(|v| [v])),
        TaskKind::Normals => Ok(values.as_chunks().0.iter().copied().flat_map(colour_of).collect()),
        TaskKind::Depth => each(task, &values, millimetres),
    }?;
    let palette = (0..=255u8).flat_map(|v| if v == IGNORE as u8 { UNKNOWN } else { classes.colour(v) });
    Ok(PngFile { size: (w as u32, h as u32), colour, depth, palette: palette.collect(), bytes })
}

/// The bytes of each value.
fn each<const N: usize>(task: &Task, values: &[f32], bytes: impl Fn(f32) -> Option<[u8; N]>) -> Result<Vec<u8>> {
    let mut all = Vec::with_capacity(N * values.len());
    for value in values {
        all.extend(bytes(*value).ok_or_else(|| cannot_hold(task, *value))?);
    }
    Ok(all)
}

fn cannot_hold(task: &Task, value: f32) -> Error {
    let (expected, cure) = match task.kind() {
        TaskKind::Depth => ("above 0 and at most 65.535 metres", "store depths in metres, 255 where nothing is known"),
        TaskKind::Sal | TaskKind::Edge => ("0, 1, or 255 to ignore", "cut soft masks at a threshold"),
        _ => ("a class of the task, or 255 to ignore", "give the task more classes"),
    };
    Error::config(format!("label of {}", task.name()), expected, value, cure)
}

fn class(value: f32, classes: usize) -> Option<u8> {
    let known = value.fract() == 0.0 && value >= 0.0 && (value as usize) < classes;
    (known || value == IGNORE).then_some(value as u8)
}

fn level(value: f32) -> Option<u8> {
    [(0.0, 0), (1.0, 255), (IGNORE, 128)].iter().find(|(from, _)| *from == value).map(|(_, level)| *level)
}

/// At least one: 0 says that nothing is known.
fn millimetres(value: f32) -> Option<[u8; 2]> {
    if value == IGNORE {
        return Some([0; 2]);
    }
    let millimetres = (f64::from(value) * 1000.0).round();
    (value > 0.0 && millimetres <= f64::from(u16::MAX)).then(|| (millimetres.max(1.0) as u16).to_be_bytes())
}

/// (n + 1) / 2 of 255, and black where nothing is known.
fn colour_of(normal: [f32; 3]) -> [u8; 3] {
    if normal[0] == IGNORE {
        return [0; 3];
    }
    normal.map(|v| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn message(task: &str, value: f32) -> String {
        let label = Tensor::full(value, (1, 1, 1), &Device::Cpu).unwrap();
        file(&task.parse().unwrap(), &label, &Classes::default()).err().unwrap().to_string()
    }

    #[test]
    fn values_that_a_file_cannot_hold_are_refused() {
        for (task, value, words) in [
            ("semseg=3", 3.0, "a class of the task, or 255 to ignore, got 3"),
            ("semseg=3", 0.5, "got 0.5"),
            ("human_parts=3", -1.0, "label of human_parts"),
            ("sal=1", 0.5, "0, 1, or 255 to ignore, got 0.5"),
            ("depth=1", 0.0, "above 0 and at most 65.535 metres, got 0"),
            ("depth=1", 65.536, "got 65.536"),
            ("normals=3", 0.0, "expected shape [3, H, W]"),
        ] {
            assert!(message(task, value).contains(words), "{task}: {}", message(task, value));
        }
    }

    #[test]
    fn classes_have_their_own_colours_and_the_unknown_has_vocs() -> Result<()> {
        let label = Tensor::new(&[[[0u8, 1, 255]]], &Device::Cpu)?;
        let classes = Classes { colours: vec![[9, 8, 7], [1, 2, 3]], ..Classes::default() };
        let file = file(&"semseg=2".parse()?, &label, &classes)?;
        assert_eq!((file.size, &file.bytes[..]), ((3, 1), &[0, 1, 255][..]));
        assert_eq!((&file.palette[3..6], &file.palette[765..]), (&[1, 2, 3][..], &UNKNOWN[..]));
        Ok(())
    }
}
