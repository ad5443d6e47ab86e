//! What surfaces look like: plain, checkered, striped or cloudy, solid through the body.

use super::vector::Vec3;

/// How two colours share a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// The first colour alone.
    Plain,
    /// Cubes of the given size in turn.
    Checker(f32),
    /// Slabs of the given thickness in turn, across the unit direction.
    Stripes(f32, Vec3),
    /// Smooth blotches of about the given size, between the two colours.
    Noise(f32),
    /// The first colour where a face would be, the second as hair above and behind; for a head of this radius that
    /// looks along z.
    Head(f32),
}

/// A pattern and its two colours, in linear light.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Texture {
    pub pattern: Pattern,
    pub first: Vec3,
    pub second: Vec3,
}

impl Texture {
    pub fn plain(colour: Vec3) -> Self {
        Self { pattern: Pattern::Plain, first: colour, second: colour }
    }

    /// The colour at a point of the body's own frame.
    pub fn colour(&self, p: Vec3) -> Vec3 {
        match self.pattern {
            Pattern::Plain => self.first,
            Pattern::Checker(size) => {
                let q = p * (1.0 / size);
                self.either((cell(q.x) + cell(q.y) + cell(q.z)) % 2 == 0)
            }
            Pattern::Stripes(size, across) => self.either(cell(p.dot(across) / size) % 2 == 0),
            Pattern::Noise(size) => self.first.mix(self.second, noise(p * (1.0 / size))),
            Pattern::Head(radius) => self.either(p.y < 0.45 * radius && p.z > -0.15 * radius),
        }
    }

    fn either(&self, first: bool) -> Vec3 {
        if first { self.first } else { self.second }
    }
}

/// Which unit cell a coordinate falls in, shifted by an odd fraction so that a flat face on a whole number is no coin toss.
fn cell(value: f32) -> i32 {
    (value + 0.0137).floor() as i32
}

/// Random values on the corners of unit cubes, blended smoothly between: 0 to 1.
fn noise(p: Vec3) -> f32 {
    let base = [p.x.floor(), p.y.floor(), p.z.floor()];
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v, w) = (smooth(p.x - base[0]), smooth(p.y - base[1]), smooth(p.z - base[2]));
    let corner = |i: i32, j: i32, k: i32| hash(base[0] as i32 + i, base[1] as i32 + j, base[2] as i32 + k);
    let line = |j, k| corner(0, j, k) * (1.0 - u) + corner(1, j, k) * u;
    let plane = |k| line(0, k) * (1.0 - v) + line(1, k) * v;
    plane(0) * (1.0 - w) + plane(1) * w
}

/// A number from 0 to 1 that three whole numbers settle.
pub(crate) fn hash(x: i32, y: i32, z: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    h ^= (z as u32).wrapping_mul(0xC2B2_AE3D);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    (h ^ (h >> 15)) as f32 / u32::MAX as f32
}

/// A colour from hue (turns), saturation and value (0 to 1), taken to linear light.
pub(crate) fn hsv(hue: f32, saturation: f32, value: f32) -> Vec3 {
    let channel = |shift: f32| {
        let k = (shift + hue.rem_euclid(1.0) * 6.0) % 6.0;
        let shade = value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0);
        shade * shade
    };
    Vec3 { x: channel(5.0), y: channel(3.0), z: channel(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::vector::vec3;

    fn texture(pattern: Pattern) -> Texture {
        Texture { pattern, first: Vec3::splat(1.0), second: Vec3::ZERO }
    }

    #[test]
    fn checkers_and_stripes_alternate() {
        let checker = texture(Pattern::Checker(0.5));
        assert_eq!(checker.colour(vec3(0.2, 0.2, 0.2)).x, 1.0);
        assert_eq!(checker.colour(vec3(0.7, 0.2, 0.2)).x, 0.0);
        assert_eq!(checker.colour(vec3(-0.2, 0.2, 0.2)).x, 0.0);
        assert_eq!(checker.colour(vec3(0.7, 0.7, 0.2)).x, 1.0);
        let stripes = texture(Pattern::Stripes(0.1, Vec3::UP));
        assert_eq!(stripes.colour(vec3(9.0, 0.05, 0.0)).x, 1.0);
        assert_eq!(stripes.colour(vec3(9.0, 0.15, 0.0)).x, 0.0);
    }

    #[test]
    fn noise_stays_in_range_varies_and_is_continuous() {
        let values: Vec<f32> = (0..2000).map(|i| noise(vec3(i as f32 * 0.01, 0.3, -7.1))).collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
        assert!(values.iter().cloned().fold(0.0, f32::max) - values.iter().cloned().fold(1.0, f32::min) > 0.5);
        assert!(values.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.03));
    }

    #[test]
    fn hues_are_where_painters_put_them() {
        let near = |a: Vec3, b: Vec3| (a - b).length() < 1e-4;
        assert!(near(hsv(0.0, 1.0, 1.0), vec3(1.0, 0.0, 0.0)));
        assert!(near(hsv(1.0 / 3.0, 1.0, 1.0), vec3(0.0, 1.0, 0.0)));
        assert!(near(hsv(2.0 / 3.0, 1.0, 1.0), vec3(0.0, 0.0, 1.0)));
        assert!(near(hsv(0.4, 0.0, 1.0), Vec3::splat(1.0)));
    }
}
