//! The pixels within a distance of a pixel.

use crate::bitmap::Bitmap;

/// Offsets of at most a distance, row by row.
#[derive(Clone, Debug)]
pub(super) struct Disc {
    /// For rows 0, 1, 2 .. away from the centre's: how far it reaches to either side.
    reach: Vec<usize>,
}

/// Where a walk over the set pixels of a disc stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    centre: (usize, usize),
    row: usize,
    column: usize,
}

impl Walk {
    /// At the beginning of the disc about a pixel.
    pub(super) fn about(centre: (usize, usize)) -> Self {
        Self { centre, row: 0, column: 0 }
    }
}

impl Disc {
    /// The offsets of at most `distance` whose rows and columns differ by less than `longest`.
    pub(super) fn new(distance: f64, longest: usize) -> Self {
        let square = distance * distance;
        let is_near = |y: usize, x: usize| (y * y + x * x) as f64 <= square;
        let mut reach = Vec::new();
        // The further the row, the shorter the reach.
        let mut x = longest.saturating_sub(1);
        for y in (0..longest).take_while(|y| is_near(*y, 0)) {
            while !is_near(y, x) {
                x -= 1;
            }
            reach.push(x);
        }
        Self { reach }
    }

    /// The next pixel of a walk that is set in a map; pixels may be taken out of the map between two calls.
    pub(super) fn next(&self, walk: &mut Walk, map: &Bitmap) -> Option<(usize, usize)> {
        let (centre_y, centre_x) = walk.centre;
        while walk.row + 1 < 2 * self.reach.len() {
            // Rows in order of distance: the centre's, the one above it, the one below it, ...
            let away = walk.row.div_ceil(2);
            let y = if walk.row.is_multiple_of(2) { Some(centre_y + away) } else { centre_y.checked_sub(away) };
            if let Some(y) = y.filter(|y| *y < map.height()) {
                let start = centre_x.saturating_sub(self.reach[away]).max(walk.column);
                let end = (centre_x + self.reach[away] + 1).min(map.width());
                if let Some(x) = map.first_in(y, start, end) {
                    walk.column = x + 1;
                    return Some((y, x));
                }
            }
            (walk.row, walk.column) = (walk.row + 1, 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_walk_meets_each_pixel_within_the_distance_once() {
        let (height, width) = (9, 70);
        let map = Bitmap::of(&vec![true; height * width], height, width, |v| v);
        for distance in [0.0, 0.9, 1.0, 2f64.sqrt(), 3.7, 5.0, 100.0] {
            let disc = Disc::new(distance, height.max(width));
            for centre in [(0, 0), (4, 63), (8, 69), (3, 10)] {
                let near = |(y, x): &(usize, usize)| {
                    (y.abs_diff(centre.0).pow(2) + x.abs_diff(centre.1).pow(2)) as f64 <= distance * distance
                };
                let expected: BTreeSet<_> = map.pixels().filter(near).collect();
                let mut walk = Walk::about(centre);
                let met: Vec<_> = std::iter::from_fn(|| disc.next(&mut walk, &map)).collect();
                assert_eq!(
                    (met.len(), met.into_iter().collect()),
                    (expected.len(), expected),
                    "{distance} about {centre:?}"
                );
            }
        }
    }
}
