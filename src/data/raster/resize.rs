//! Maps in another size.

use super::cubic::weights;
use super::{Planes, gather};

/// The map in this height and width, each pixel one of its own: classes do not mix.
pub(in crate::data) fn resize_nearest<T: Copy>(map: Planes<T>, (height, width): (usize, usize)) -> Vec<T> {
    gather(map, &nearest_of(map.width, width), &nearest_of(map.height, height))
}

/// Where each of `count` places along a side finds its pixel, of `whole`: not centred, as OpenCV and candle have it.
pub(in crate::data) fn nearest_of(whole: usize, count: usize) -> Vec<usize> {
    (0..count).map(|at| (at as u64 * whole as u64 / count as u64) as usize).collect()
}

/// The map in this height and width by the cubic, which overshoots beside edges.
pub(in crate::data) fn resize_cubic<T: Copy + Into<f64>>(map: Planes<T>, (height, width): (usize, usize)) -> Vec<f32> {
    let (columns, rows) = (taps(map.width, width), taps(map.height, height));
    let mut values = Vec::with_capacity(map.channels() * height * width);
    let (mut line, mut narrowed) = (Vec::with_capacity(map.width), vec![0.0; map.height * width]);
    for plane in map.planes() {
        for (source, narrowed) in plane.chunks_exact(map.width).zip(narrowed.chunks_exact_mut(width)) {
            line.clear();
            line.extend(source.iter().map(|value| -> f64 { (*value).into() }));
            for (value, tap) in narrowed.iter_mut().zip(&columns) {
                let [a, b, c, d] = tap.at.map(|at| line[at]);
                let [p, q, r, s] = tap.weights;
                *value = a * p + b * q + c * r + d * s;
            }
        }
        for tap in &rows {
            let [a, b, c, d] = tap.at.map(|row| &narrowed[row * width..][..width]);
            let [p, q, r, s] = tap.weights;
            for x in 0..width {
                values.push((a[x] * p + b[x] * q + c[x] * r + d[x] * s) as f32);
            }
        }
    }
    values
}

/// The four pixels along a side that make one of the result, and their weights.
struct Taps {
    at: [usize; 4],
    weights: [f64; 4],
}

/// Pixel centres lie at halves; beyond the rim its pixel is repeated.
fn taps(whole: usize, count: usize) -> Vec<Taps> {
    let scale = whole as f64 / count as f64;
    let last = whole as i64 - 1;
    let of = |at: usize| {
        let place = (at as f64 + 0.5) * scale - 0.5;
        let second = place.floor();
        let clamped = |k: i64| (second as i64 + k).clamp(0, last) as usize;
        Taps { at: [clamped(-1), clamped(0), clamped(1), clamped(2)], weights: weights(place - second) }
    };
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_the_pixel_to_the_left_and_above() {
        let map: Vec<u8> = (0..6).chain(10..16).collect();
        let map = Planes::new(&map, (2, 3));
        assert_eq!(resize_nearest(map, (1, 2)), [0, 1, 10, 11], "two channels, floor(1 * 3 / 2) = 1");
        assert_eq!(resize_nearest(map, (2, 6))[..6], [0, 0, 1, 1, 2, 2]);
        assert_eq!(resize_nearest(map, (2, 3)), (0..6).chain(10..16).collect::<Vec<u8>>());
    }

    #[test]
    fn cubic_keeps_a_map_of_the_same_size_and_constants_in_any() {
        let map: Vec<u8> = (0..30).map(|i| (i * 37 % 251) as u8).collect();
        let same = resize_cubic(Planes::new(&map, (5, 3)), (5, 3));
        assert!(map.iter().zip(&same).all(|(a, b)| f32::from(*a) == *b));
        for size in [(1, 1), (4, 9), (13, 2)] {
            let constant = resize_cubic(Planes::new(&[0.3f32; 15], (5, 3)), size);
            assert!(
                constant.len() == size.0 * size.1 && constant.iter().all(|v| (v - 0.3).abs() < 1e-7),
                "{constant:?}"
            );
        }
    }

    /// Halved, each pixel lies half way between two: -0.09375, 0.59375, 0.59375, -0.09375.
    #[test]
    fn cubic_by_hand_with_the_rim_repeated() {
        let half = |values: &[f32]| resize_cubic(Planes::new(values, (1, values.len())), (1, values.len() / 2));
        assert_eq!(half(&[0.0, 32.0, 0.0, 0.0]), [0.59375 * 32.0, -0.09375 * 32.0]);
        assert_eq!(
            half(&[32.0, 0.0, 0.0, 0.0]),
            [(0.59375 - 0.09375) * 32.0, 0.0],
            "the first pixel is its own neighbour"
        );
        let column = resize_cubic(Planes::new(&[0.0f32, 32.0, 0.0, 0.0], (4, 1)), (2, 1));
        assert_eq!(column, [19.0, -3.0]);
    }
}
