//! Non-maximum suppression of predicted edges, as the benchmark's MATLAB and C++ have it, in single precision.

/// Dollar's `edgesNms` with the benchmark's constants: triangle filter of radius 4, neighbours at distance 1, factor 1.01, and a rim
/// of 5 pixels along which edges fade.
pub(super) fn suppress(edges: &[f32], height: usize, width: usize) -> Vec<f32> {
    let plane = Plane { height, width };
    let orientation = plane.orientation(edges);
    let mut kept = edges.to_vec();
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            let (sine, cosine) = orientation[i].sin_cos();
            let beside = |d: f32| plane.at(edges, x as f32 + d * cosine, y as f32 + d * sine);
            let strengthened = 1.01 * edges[i];
            if strengthened < beside(-1.0) || strengthened < beside(1.0) {
                kept[i] = 0.0;
            }
        }
    }
    plane.fade(&mut kept);
    kept
}

/// The size of a map.
#[derive(Clone, Copy)]
struct Plane {
    height: usize,
    width: usize,
}

/// Along which of a map's sides.
#[derive(Clone, Copy)]
enum Axis {
    X,
    Y,
}

/// How many pixels from the rim edges fade.
const RIM: usize = 5;

impl Plane {
    /// Across which direction each pixel's edge runs, from 0 to pi.
    fn orientation(self, edges: &[f32]) -> Vec<f32> {
        let mut smooth = edges.to_vec();
        self.along(&mut smooth, Axis::X, |line| triangle(line, 1.0 / 625.0));
        self.along(&mut smooth, Axis::Y, |line| triangle(line, 1.0));
        let (dx, dy) = (self.gradient(&smooth, Axis::X), self.gradient(&smooth, Axis::Y));
        let (dxx, dxy) = (self.gradient(&dx, Axis::X), self.gradient(&dy, Axis::X));
        let dyy = self.gradient(&dy, Axis::Y);
        let sign = |v: f32| if v == 0.0 { 0.0 } else { v.signum() };
        let angle = |i: usize| (dyy[i] * sign(-dxy[i]) / (dxx[i] + 1e-5)).atan();
        (0..edges.len()).map(|i| angle(i).rem_euclid(std::f32::consts::PI)).collect()
    }

    /// How many pixels lie along an axis, and how far two of them are apart in memory.
    fn line(self, axis: Axis) -> (usize, usize) {
        match axis {
            Axis::X => (self.width, 1),
            Axis::Y => (self.height, self.width),
        }
    }

    /// Makes each line along an axis anew, in place.
    fn along(self, map: &mut [f32], axis: Axis, mut remake: impl FnMut(&mut [f32])) {
        let (n, stride) = self.line(axis);
        let mut line = vec![0.0; n];
        for k in 0..map.len() / n.max(1) {
            let start = match axis {
                Axis::X => k * n,
                Axis::Y => k,
            };
            line.iter_mut().enumerate().for_each(|(i, value)| *value = map[start + i * stride]);
            remake(&mut line);
            line.iter().enumerate().for_each(|(i, value)| map[start + i * stride] = *value);
        }
    }

    /// Half the difference of the neighbours; at the rim the difference to the one neighbour.
    fn gradient(self, map: &[f32], axis: Axis) -> Vec<f32> {
        let mut made = map.to_vec();
        self.along(&mut made, axis, |line| {
            let old = line.to_vec();
            for (i, value) in line.iter_mut().enumerate() {
                let (before, after) = (i.saturating_sub(1), (i + 1).min(old.len() - 1));
                *value = (old[after] - old[before]) / (after - before).max(1) as f32;
            }
        });
        made
    }

    /// The value between pixels, bilinear, within the map.
    fn at(self, map: &[f32], x: f32, y: f32) -> f32 {
        let clamp = |v: f32, n: usize| v.min(n as f32 - 1.001).max(0.0);
        let (x, y) = (clamp(x, self.width), clamp(y, self.height));
        let (x0, y0) = (x as usize, y as usize);
        let (x1, y1) = ((x0 + 1).min(self.width - 1), (y0 + 1).min(self.height - 1));
        let (dx, dy) = (x - x0 as f32, y - y0 as f32);
        let value = |y: usize, x: usize| map[y * self.width + x];
        value(y0, x0) * (1.0 - dx) * (1.0 - dy)
            + value(y0, x1) * dx * (1.0 - dy)
            + value(y1, x0) * (1.0 - dx) * dy
            + value(y1, x1) * dx * dy
    }

    /// Fades the columns next to the rim, then the rows.
    fn fade(self, map: &mut [f32]) {
        let rim = RIM.min(self.width / 2).min(self.height / 2);
        for axis in [Axis::X, Axis::Y] {
            let (n, _) = self.line(axis);
            for (i, value) in map.iter_mut().enumerate() {
                let at = match axis {
                    Axis::X => i % self.width,
                    Axis::Y => i / self.width,
                };
                let from_rim = at.min(n - 1 - at);
                if from_rim < rim {
                    *value *= from_rim as f32 / rim as f32;
                }
            }
        }
    }
}

/// The triangle filter 1 2 3 4 5 4 3 2 1 times `scale`, the line mirrored at its ends with the end repeated, by running sums: rounding
/// decides which of two equal neighbours is kept, so they are added up in the order of the benchmark's own code.
fn triangle(line: &mut [f32], scale: f32) {
    const R: usize = 5;
    let (old, n) = (line.to_vec(), line.len());
    let at = |k: isize| {
        let k = k.rem_euclid(2 * n as isize) as usize;
        old[k.min(2 * n - 1 - k)]
    };
    let (mut slope, mut sum) = (at(0), at(0));
    for k in 1..R as isize {
        slope += at(k);
        sum += slope;
    }
    sum = scale * (2.0 * sum - slope);
    slope = 0.0;
    line[0] = sum;
    for (i, value) in line.iter_mut().enumerate().skip(1) {
        let i = i as isize;
        slope += at(i - 1 - R as isize) + at(i - 1 + R as isize) - 2.0 * old[i as usize - 1];
        sum += scale * slope;
        *value = sum;
    }
}
