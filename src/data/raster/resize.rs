//! Maps in another size.

use super::cubic::{weight, weights};
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
    resize(map, &sharp(map.width, width), &sharp(map.height, height))
}

/// [`resize_cubic`] by a cubic as wide as the steps between the result's pixels, so that fine patterns become even when a map shrinks.
pub(in crate::data) fn resize_smooth<T: Copy + Into<f64>>(map: Planes<T>, (height, width): (usize, usize)) -> Vec<f32> {
    resize(map, &smooth(map.width, width), &smooth(map.height, height))
}

/// First along the rows, then along the columns; the other way round where what lies between would be far larger than both maps: where a
/// tall one becomes a flat one.
fn resize<T: Copy + Into<f64>>(map: Planes<T>, columns: &[Taps], rows: &[Taps]) -> Vec<f32> {
    let (height, width) = (rows.len(), columns.len());
    let rows_first = map.height * width <= 4 * (map.height * map.width).max(height * width);
    let mut values = Vec::with_capacity(map.channels() * height * width);
    let mut keep = |line: &[f64]| values.extend(line.iter().map(|value| *value as f32));
    let mut between = Vec::with_capacity(if rows_first { map.height * width } else { height * map.width });
    for plane in map.planes() {
        between.clear();
        if rows_first {
            along_rows(plane, map.width, columns, |line| between.extend_from_slice(line));
            along_columns(&between, width, rows, &mut keep);
        } else {
            along_columns(plane, map.width, rows, |line| between.extend_from_slice(line));
            along_rows(&between, map.width, columns, &mut keep);
        }
    }
    values
}

/// Gives each line of this width, resized.
fn along_rows<T: Copy + Into<f64>>(plane: &[T], width: usize, columns: &[Taps], mut give: impl FnMut(&[f64])) {
    let (mut line, mut sums) = (Vec::with_capacity(width), vec![0.0; columns.len()]);
    for source in plane.chunks_exact(width) {
        line.clear();
        line.extend(source.iter().map(|value| -> f64 { (*value).into() }));
        for (sum, taps) in sums.iter_mut().zip(columns) {
            *sum = taps.of(&line).zip(&taps.weights).map(|(value, weight)| value * weight).sum();
        }
        give(&sums);
    }
}

/// Gives each line of the result, of this width still.
fn along_columns<T: Copy + Into<f64>>(plane: &[T], width: usize, rows: &[Taps], mut give: impl FnMut(&[f64])) {
    let mut sums = vec![0.0; width];
    for taps in rows {
        sums.fill(0.0);
        for (row, weight) in (taps.first..).zip(&taps.weights) {
            for (sum, value) in sums.iter_mut().zip(&plane[row * width..][..width]) {
                *sum += (*value).into() * weight;
            }
        }
        give(&sums);
    }
}

/// The pixels along a side that make one of the result, and their weights, which sum to 1.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

impl Taps {
    /// Of weights that begin at a pixel before the rim, perhaps: what lies beyond it goes to the rim's own pixel, which repeats it.
    fn within(whole: usize, first: i64, weights: impl IntoIterator<Item = f64>) -> Self {
        let last = whole as i64 - 1;
        let mut taps = Self { first: first.clamp(0, last) as usize, weights: Vec::new() };
        for (at, weight) in (first..).zip(weights) {
            let at = at.clamp(0, last) as usize - taps.first;
            match taps.weights.get_mut(at) {
                Some(sum) => *sum += weight,
                None => taps.weights.push(weight),
            }
        }
        taps
    }

    fn of<'a>(&self, line: &'a [f64]) -> impl Iterator<Item = &'a f64> {
        line[self.first..][..self.weights.len()].iter()
    }
}

/// Four pixels around each place of the result; pixel centres lie at halves.
fn sharp(whole: usize, count: usize) -> Vec<Taps> {
    let of = |place: f64| {
        let second = place.floor();
        Taps::within(whole, second as i64 - 1, weights(place - second))
    };
    places(whole, count).map(of).collect()
}

fn smooth(whole: usize, count: usize) -> Vec<Taps> {
    let step = (whole as f64 / count as f64).max(1.0);
    let of = |place: f64| {
        let (first, last) = ((place - 2.0 * step).ceil() as i64, (place + 2.0 * step).floor() as i64);
        let weights: Vec<f64> = (first..=last).map(|at| weight((at as f64 - place).abs() / step)).collect();
        let sum: f64 = weights.iter().sum();
        Taps::within(whole, first, weights.into_iter().map(|weight| weight / sum))
    };
    places(whole, count).map(of).collect()
}

fn places(whole: usize, count: usize) -> impl Iterator<Item = f64> {
    let step = whole as f64 / count as f64;
    (0..count).map(move |at| (at as f64 + 0.5) * step - 0.5)
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

    /// A column of 2^20 pixels made a row of as many: in between lies a pixel, not 2^40. And either order gives the same.
    #[test]
    fn a_tall_map_becomes_a_flat_one_in_little_memory() {
        let side = 1 << 20;
        let flat = resize_cubic(Planes::new(&vec![7u8; side], (side, 1)), (1, side));
        assert!(flat.len() == side && flat.iter().all(|v| *v == 7.0));
        let smooth = resize_smooth(Planes::new(&vec![7u8; side], (side, 1)), (1, side));
        assert!(smooth.len() == side && smooth.iter().all(|v| (v - 7.0).abs() < 1e-5));
        let tall: Vec<f32> = (0..80).map(|i| (i * 37 % 101) as f32).collect();
        let turned: Vec<f32> = (0..80).map(|i| tall[i % 40 * 2 + i / 40]).collect();
        let flat = resize_cubic(Planes::new(&tall, (40, 2)), (3, 30));
        let turned = resize_cubic(Planes::new(&turned, (2, 40)), (30, 3));
        for (i, value) in flat.iter().enumerate() {
            assert!((value - turned[i % 30 * 3 + i / 30]).abs() < 1e-4, "{i}");
        }
    }

    /// Stripes of a pixel's width, a third as large: every third pixel is all black or all white; smoothed they are nearly grey.
    #[test]
    fn smooth_shrinking_evens_out_what_sharp_shrinking_picks() {
        let stripes: Vec<f32> = (0..120).map(|x| if x % 2 == 0 { 0.0 } else { 1.0 }).collect();
        let spread = |values: &[f32]| values[4..36].iter().map(|v| (v - 0.5).abs()).fold(0.0, f32::max);
        let map = Planes::new(&stripes, (1, 120));
        assert_eq!(spread(&resize_cubic(map, (1, 40))), 0.5);
        assert!(spread(&resize_smooth(map, (1, 40))) < 0.05, "{:?}", resize_smooth(map, (1, 40)));
        assert_eq!(resize_smooth(map, (1, 240)), resize_cubic(map, (1, 240)), "the same when a map grows");
    }
}
