//! Maps turned and scaled about their centre.

use super::Planes;
use super::cubic::weights;

/// A turn and a scale about the centre of maps of one size, which they keep.
///
/// With `a = s cos t`, `b = s sin t` the matrix `[a, b, (1 - a) W/2 - b H/2; -b, a, b W/2 + (1 - a) H/2]` leads from a pixel to its
/// place in the result; its inverse `I` tells where a pixel of the result comes from. That place is rounded as OpenCV 4 does, in
/// 1024ths of a pixel: `X = rint(1024 I00 x) + rint(1024 (I01 y + I02))`, and then to a whole pixel, or to a 32th of one.
#[derive(Clone, Debug)]
pub(in crate::data) struct Warp {
    inverse: [[f64; 3]; 2],
    /// `rint(1024 I00 x)` and `rint(1024 I10 x)` for each column.
    columns: Vec<(i64, i64)>,
    height: usize,
}

/// Steps in a pixel, and the digits of `X` below a 32th of a pixel.
const STEPS: f64 = 1024.0;
const FINE: u32 = 5;

/// The cubic's weights at each 32th between two pixels.
const WEIGHTS: [[f64; 4]; 32] = {
    let (mut table, mut i) = ([[0.0; 4]; 32], 0);
    while i < 32 {
        table[i] = weights(i as f64 / 32.0);
        i += 1;
    }
    table
};

impl Warp {
    /// Of maps of this height and width: turned counter-clockwise as seen, and made larger where `scale` is above 1.
    pub fn new((height, width): (usize, usize), degrees: f64, scale: f64) -> Self {
        let inverse = inverse(matrix((height as f64, width as f64), degrees.to_radians(), scale));
        let step = |factor: f64, x: usize| (factor * x as f64 * STEPS).round_ties_even() as i64;
        let columns = (0..width).map(|x| (step(inverse[0][0], x), step(inverse[1][0], x))).collect();
        Self { inverse, columns, height }
    }

    /// Each pixel the nearest one's; `outside` where it would lie beyond the rim.
    pub fn nearest<T: Copy>(&self, map: Planes<T>, outside: T) -> Vec<T> {
        let mut values = vec![outside; map.channels() * map.height * map.width];
        let area = map.height * map.width;
        for (at, (x, y)) in self.places().enumerate() {
            let (column, row) = ((x + 512) >> 10, (y + 512) >> 10);
            if (0..map.width as i64).contains(&column) && (0..map.height as i64).contains(&row) {
                let source = row as usize * map.width + column as usize;
                for (c, plane) in map.planes().enumerate() {
                    values[c * area + at] = plane[source];
                }
            }
        }
        values
    }

    /// By the cubic of the 16 pixels around; one that lies beyond the rim counts as 0.
    pub fn cubic<T: Copy + Into<f64>>(&self, map: Planes<T>) -> Vec<f32> {
        let mut values = vec![0.0; map.channels() * map.height * map.width];
        let area = map.height * map.width;
        for (at, (x, y)) in self.places().enumerate() {
            let window = Window::at(x, y);
            if window.misses(&map) {
                continue;
            }
            let whole = window.lies_within(&map);
            for (c, plane) in map.planes().enumerate() {
                let value = if whole { window.sum(plane, map.width) } else { window.sum_inside(plane, &map) };
                values[c * area + at] = value as f32;
            }
        }
        values
    }

    /// Where each pixel of the result comes from, row by row, in 1024ths.
    fn places(&self) -> impl Iterator<Item = (i64, i64)> {
        (0..self.height).flat_map(|y| {
            let start = |[_, by_row, shift]: [f64; 3]| ((by_row * y as f64 + shift) * STEPS).round_ties_even() as i64;
            let (x0, y0) = (start(self.inverse[0]), start(self.inverse[1]));
            self.columns.iter().map(move |(x, y)| (x0 + x, y0 + y))
        })
    }
}

/// 4 x 4 pixels around a place, and their weights.
struct Window {
    left: i64,
    top: i64,
    across: &'static [f64; 4],
    down: &'static [f64; 4],
}

impl Window {
    fn at(x: i64, y: i64) -> Self {
        let half = 1 << (FINE - 1);
        let (x, y) = ((x + half) >> FINE, (y + half) >> FINE);
        let of = |place: i64| &WEIGHTS[(place & 31) as usize];
        Self { left: (x >> 5) - 1, top: (y >> 5) - 1, across: of(x), down: of(y) }
    }

    fn misses<T>(&self, map: &Planes<T>) -> bool {
        let beyond = |first: i64, length: usize| first <= -4 || first >= length as i64;
        beyond(self.left, map.width) || beyond(self.top, map.height)
    }

    fn lies_within<T>(&self, map: &Planes<T>) -> bool {
        let within = |first: i64, length: usize| first >= 0 && first + 4 <= length as i64;
        within(self.left, map.width) && within(self.top, map.height)
    }

    /// Of a window that lies within the map.
    fn sum<T: Copy + Into<f64>>(&self, plane: &[T], width: usize) -> f64 {
        let [p, q, r, s] = *self.across;
        let mut sum = 0.0;
        for (row, weight) in self.down.iter().enumerate() {
            let line = &plane[(self.top as usize + row) * width + self.left as usize..][..4];
            sum += weight * (line[0].into() * p + line[1].into() * q + line[2].into() * r + line[3].into() * s);
        }
        sum
    }

    fn sum_inside<T: Copy + Into<f64>>(&self, plane: &[T], map: &Planes<T>) -> f64 {
        let mut sum = 0.0;
        for (row, down) in (self.top..).zip(self.down).filter(|(row, _)| (0..map.height as i64).contains(row)) {
            let line = &plane[row as usize * map.width..][..map.width];
            for (column, across) in (self.left..).zip(self.across).filter(|(x, _)| (0..map.width as i64).contains(x)) {
                sum += down * across * line[column as usize].into();
            }
        }
        sum
    }
}

fn matrix((height, width): (f64, f64), angle: f64, scale: f64) -> [[f64; 3]; 2] {
    let (a, b) = (scale * angle.cos(), scale * angle.sin());
    let (x, y) = (width / 2.0, height / 2.0);
    [[a, b, (1.0 - a) * x - b * y], [-b, a, b * x + (1.0 - a) * y]]
}

/// In OpenCV's order of operations: the last digit settles how ties are rounded.
fn inverse([[a, b, x], [c, d, y]]: [[f64; 3]; 2]) -> [[f64; 3]; 2] {
    let shrink = 1.0 / (a * d - b * c);
    let (a, b, c, d) = (d * shrink, b * -shrink, c * -shrink, a * shrink);
    [[a, b, -a * x - b * y], [c, d, -c * x - d * y]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(size: (usize, usize), degrees: f64, scale: f64) -> Vec<u8> {
        let map: Vec<u8> = (1..=size.0 * size.1).map(|v| v as u8).collect();
        Warp::new(size, degrees, scale).nearest(Planes::new(&map, size), 0)
    }

    /// Pixel centres lie at whole numbers and the centre at W/2, H/2: a quarter turn to the left moves the upper row out.
    #[test]
    fn a_quarter_turn_goes_counter_clockwise_about_half_the_size() {
        assert_eq!(nearest((3, 3), 0.0, 1.0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(nearest((4, 4), 90.0, 1.0), [0, 0, 0, 0, 4, 8, 12, 16, 3, 7, 11, 15, 2, 6, 10, 14]);
        assert_eq!(nearest((4, 4), 180.0, 1.0), [0, 0, 0, 0, 0, 16, 15, 14, 0, 12, 11, 10, 0, 8, 7, 6]);
        assert_eq!(nearest((2, 2), 45.0, 0.01), [0, 0, 0, 4], "shrunk to the centre alone");
    }

    #[test]
    fn cubic_equals_nearest_where_places_are_whole_pixels() {
        let map: Vec<u8> = (0..2 * 7 * 6).map(|v| (v * 53 % 256) as u8).collect();
        for degrees in [0.0, 90.0, -90.0, 180.0] {
            let (size, map) = ((6, 6), &map[..72]);
            let warp = Warp::new(size, degrees, 1.0);
            let cubic = warp.cubic(Planes::new(map, size));
            let nearest = warp.nearest(Planes::new(map, size), 0);
            assert!(cubic.iter().zip(&nearest).all(|(a, b)| *a == f32::from(*b)), "{degrees}: {cubic:?} {nearest:?}");
        }
    }

    /// Twice as large about the centre of one row: every other pixel lies half way, and the taps beyond the rim count 0.
    #[test]
    fn cubic_by_hand_with_nothing_outside() {
        let warp = Warp::new((2, 4), 0.0, 2.0);
        let got = warp.cubic(Planes::new(&[0.0f32, 32.0, 64.0, 32.0, 0.0, 32.0, 64.0, 32.0], (2, 4)));
        // The lower row's place is 1 + (1 - 1) / 2 = 1, the upper's half a row above it.
        let lower = [32.0, 0.59375 * 96.0 - 0.09375 * 32.0, 64.0, 0.59375 * 96.0 - 0.09375 * 32.0];
        assert_eq!(got[4..], lower);
        for (upper, lower) in got[..4].iter().zip(lower) {
            assert!((upper - lower * (0.59375 * 2.0)).abs() < 1e-4, "{upper} {lower}");
        }
    }
}
