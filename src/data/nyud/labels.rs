//! NYUD-v2's label files, in whichever of the forms that circulate.

use crate::data::label::normal;
use crate::data::label_map::{LabelMap, check_values};
use crate::data::mat::Variable;
use crate::data::npy::read_npy;
use crate::data::photos::decode_photo;
use crate::data::pixel_limit::{PIXEL_LIMIT, check_size};
use crate::data::stored::Stored;
use crate::{Error, Result, TaskKind};
use std::path::Path;

/// The number of the last class in the files.
const LAST_CLASS: f32 = 40.0;
/// No part of a normal is longer, whatever it was rounded or resized by.
const LONGEST: f32 = 1.5;
const CURE: &str = "take the file as it was published";

/// The forms of a task's files; the first that is there counts.
pub(super) fn endings(kind: TaskKind) -> &'static [&'static str] {
    match kind {
        TaskKind::Semseg => &["png", "mat"],
        TaskKind::Normals => &["npy", "png", "jpg"],
        TaskKind::Edge => &["npy", "png"],
        _ => &["npy", "mat"],
    }
}

/// Classes from 0, 255 where none is known.
pub(super) fn classes(path: &Path) -> Result<LabelMap<u8>> {
    let stored = if is(path, "mat") { of_variable(path, "segmentation")? } else { of_png(path)?.map(f32::from) };
    check_values(path, &stored, &format!("0 to {LAST_CLASS}"), |v| {
        (0.0..=LAST_CLASS).contains(&v) && v.fract() == 0.0
    })?;
    // 0, unlabelled, becomes 255.
    Ok(stored.map(|class| (class as u8).wrapping_sub(1)))
}

/// Metres, 0 where nothing is known.
pub(super) fn depths(path: &Path) -> Result<LabelMap<f32>> {
    let depths = if is(path, "mat") { of_variable(path, "depth")? } else { of_array(path, 1)? };
    check_values(path, &depths, "metres from 0", |depth| depth >= 0.0 && depth.is_finite())?;
    Ok(depths)
}

/// 1 on an edge, as it is stored; 255 is what it is everywhere, unknown.
pub(super) fn edges(path: &Path) -> Result<LabelMap<u8>> {
    if is(path, "png") {
        let levels = of_png(path)?;
        check_values(path, &levels, "0 or 255", |level| matches!(level, 0 | 255))?;
        return Ok(levels.map(|level| u8::from(level == 255)));
    }
    let edges = of_array(path, 1)?;
    check_values(path, &edges, "0 or 1", |edge| [0.0, 1.0, 255.0].contains(&edge))?;
    Ok(edges.map(|edge| edge as u8))
}

/// Vectors, of length 0 where nothing is known.
pub(super) fn normals(path: &Path) -> Result<LabelMap<f32>> {
    if !is(path, "npy") {
        return of_colours(path);
    }
    let normals = of_array(path, 3)?;
    check_values(path, &normals, "a part of a unit vector", |part| part.abs() <= LONGEST)?;
    Ok(normals)
}

fn is(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|other| other == ending)
}

/// The numbers of a grey or a palette.
fn of_png(path: &Path) -> Result<LabelMap<u8>> {
    let stored = Stored::read(path, PIXEL_LIMIT)?;
    if !stored.is_of_classes() {
        let problem = format!("expected a palette or grey of at most 8 bits, got {}", stored.form());
        return Err(Error::file(path, problem, CURE));
    }
    Ok(LabelMap { size: (stored.height, stored.width), values: stored.bytes })
}

fn of_array(path: &Path, channels: usize) -> Result<LabelMap<f32>> {
    let array = read_npy(path)?;
    if array.channels != channels {
        let problem = format!("expected {channels} values a pixel, got {}", array.channels);
        return Err(Error::file(path, problem, CURE));
    }
    Ok(LabelMap { size: (array.height, array.width), values: array.values })
}

/// A variable of numbers.
fn of_variable(path: &Path, name: &str) -> Result<LabelMap<f32>> {
    let variable = Variable::read(path, name)?;
    let numbers = variable.matrix()?.numbers()?;
    let size @ (height, width) = numbers.size();
    if height * width == 0 {
        return Err(Error::file(path, format!("an empty `{name}`"), CURE));
    }
    check_size(path, (width as u32, height as u32), PIXEL_LIMIT)?;
    let mut values = vec![0.0; height * width];
    numbers.each(|y, x, value| values[y * width + x] = value as f32);
    Ok(LabelMap { values, size })
}

/// The vectors that red, green and blue stand for.
fn of_colours(path: &Path) -> Result<LabelMap<f32>> {
    let picture = decode_photo(path, PIXEL_LIMIT)?.0.to_rgb8();
    let size @ (height, width) = (picture.height() as usize, picture.width() as usize);
    let mut values = vec![0.0; 3 * height * width];
    for (at, pixel) in picture.into_raw().as_chunks().0.iter().enumerate() {
        if let Some((vector, _)) = normal(*pixel) {
            (0..3).for_each(|c| values[c * height * width + at] = vector[c]);
        }
    }
    Ok(LabelMap { values, size })
}
