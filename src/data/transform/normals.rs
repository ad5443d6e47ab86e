//! Maps of normals, `[3, H, W]` one plane after the other: x right, y down, z towards the viewer, IGNORE where nothing is known.

use crate::sample::IGNORE;

/// As seen in a mirror.
pub(super) fn mirror(normals: &mut [f32]) {
    let (x, _, _) = planes(normals);
    x.iter_mut().filter(|x| **x != IGNORE).for_each(|x| *x = -*x);
}

/// Turned with the image, counter-clockwise as seen: with y down, `(x cos t + y sin t, y cos t - x sin t)`.
pub(super) fn turn(normals: &mut [f32], degrees: f64) {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (x, y, _) = planes(normals);
    for (x, y) in x.iter_mut().zip(y).filter(|(x, _)| **x != IGNORE) {
        let (right, down) = (f64::from(*x), f64::from(*y));
        (*x, *y) = ((right * cos + down * sin) as f32, (down * cos - right * sin) as f32);
    }
}

/// Of length 1 where they are known.
pub(super) fn unit(normals: &mut [f32]) {
    let (x, y, z) = planes(normals);
    for ((x, y), z) in x.iter_mut().zip(y).zip(z).filter(|((x, _), _)| **x != IGNORE) {
        let length = [&*x, &*y, &*z].map(|v| f64::from(*v).powi(2)).iter().sum::<f64>().sqrt() + f64::EPSILON;
        for v in [x, y, z] {
            *v = (f64::from(*v) / length) as f32;
        }
    }
}

/// What a filter makes of the three planes: unknown pixels add nothing to it, and what becomes exactly 0 is unknown.
pub(super) fn mixed(mut normals: Vec<f32>, filter: impl FnOnce(&[f32]) -> Vec<f32>) -> Vec<f32> {
    normals.iter_mut().filter(|v| **v == IGNORE).for_each(|v| *v = 0.0);
    let mut normals = filter(&normals);
    let (x, y, z) = planes(&mut normals);
    for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
        if (*x, *y, *z) == (0.0, 0.0, 0.0) {
            (*x, *y, *z) = (IGNORE, IGNORE, IGNORE);
        }
    }
    normals
}

fn planes(normals: &mut [f32]) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let (x, rest) = normals.split_at_mut(normals.len() / 3);
    let (y, z) = rest.split_at_mut(rest.len() / 2);
    (x, y, z)
}
