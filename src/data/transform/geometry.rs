//! What moves pixels: each kind of map in its own way.

use super::canvas::Canvas;
use super::choices::{Outside, Shrink};
use super::normals;
use crate::TaskKind;
use crate::data::raster::{Planes, Warp, resize_cubic, resize_smooth};
use crate::sample::IGNORE;

/// Left and right exchanged.
pub(super) fn flip(canvas: &mut Canvas) {
    let columns: Vec<usize> = (0..canvas.width).rev().collect();
    let rows: Vec<usize> = (0..canvas.height).collect();
    canvas.gather(&columns, &rows);
    canvas.labels_of(TaskKind::Normals).for_each(|values| values.change(normals::mirror));
}

/// Turned and scaled about the centre, in the same size: image and normals by the cubic, the rest whole pixels.
pub(super) fn warp(canvas: &mut Canvas, degrees: f64, scale: f64, outside: Outside) {
    let size = canvas.size();
    let warp = Warp::new(size, degrees, scale);
    canvas.image.values.update(|values| warp.cubic(Planes::new(&values, size)));
    for label in &mut canvas.labels {
        let beyond = match outside {
            Outside::Zero => 0,
            Outside::Ignore => IGNORE as u8,
        };
        match label.kind {
            TaskKind::Normals => label.values.update(|mut values| {
                normals::turn(&mut values, degrees);
                normals::mixed(values, |values| warp.cubic(Planes::new(values, size)))
            }),
            TaskKind::Depth => {
                label.values = label.values.warped(size, &warp, IGNORE as u8);
                label.values.change(|depths| divide(depths, scale));
            }
            _ => label.values = label.values.warped(size, &warp, beyond),
        }
    }
}

/// In another size, whatever that does to the aspect: image and normals by the cubic, the rest whole pixels.
pub(super) fn resize(canvas: &mut Canvas, to: (usize, usize), shrink: Shrink) {
    let size = canvas.size();
    let cubic = match shrink {
        Shrink::Sharp => resize_cubic,
        Shrink::Smooth => resize_smooth,
    };
    canvas.image.values.update(|values| cubic(Planes::new(&values, size), to));
    for label in &mut canvas.labels {
        if label.kind == TaskKind::Normals {
            label.values.update(|values| normals::mixed(values, |values| resize_cubic(Planes::new(values, size), to)));
            label.values.change(normals::unit);
        } else {
            label.values = label.values.resized(size, to);
        }
    }
    (canvas.height, canvas.width) = to;
}

/// What is seen larger is nearer.
fn divide(depths: &mut [f32], scale: f64) {
    let known = depths.iter_mut().filter(|depth| **depth != IGNORE);
    known.for_each(|depth| *depth = (f64::from(*depth) / scale) as f32);
}
