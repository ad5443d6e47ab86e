//! Vectors of three numbers, and rigid poses: where a body stands and how it is turned.

use std::ops::{Add, Mul, Neg, Sub};

/// A point, direction or colour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Vec3 {
    pub x: f32,
    pub y: f32,
    pub z: f32,
}

/// A vector from its three numbers.
#[inline]
pub(crate) const fn vec3(x: f32, y: f32, z: f32) -> Vec3 {
    Vec3 { x, y, z }
}

impl Vec3 {
    pub const ZERO: Self = vec3(0.0, 0.0, 0.0);
    pub const UP: Self = vec3(0.0, 1.0, 0.0);

    #[inline]
    pub fn splat(value: f32) -> Self {
        vec3(value, value, value)
    }

    #[inline]
    pub fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    #[inline]
    pub fn cross(self, other: Self) -> Self {
        vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    #[inline]
    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The vector at length one; zero stays zero.
    #[inline]
    pub fn unit(self) -> Self {
        let length = self.length();
        if length > 0.0 { self * (1.0 / length) } else { self }
    }

    #[inline]
    pub fn abs(self) -> Self {
        vec3(self.x.abs(), self.y.abs(), self.z.abs())
    }

    /// Product of each pair of numbers, as when light meets colour.
    #[inline]
    pub fn times(self, other: Self) -> Self {
        vec3(self.x * other.x, self.y * other.y, self.z * other.z)
    }

    /// From `self` at 0 to `other` at 1.
    #[inline]
    pub fn mix(self, other: Self, share: f32) -> Self {
        self * (1.0 - share) + other * share
    }

    #[inline]
    pub fn array(self) -> [f32; 3] {
        [self.x, self.y, self.z]
    }
}

impl Add for Vec3 {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        vec3(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl Sub for Vec3 {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        vec3(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Mul<f32> for Vec3 {
    type Output = Self;
    #[inline]
    fn mul(self, factor: f32) -> Self {
        vec3(self.x * factor, self.y * factor, self.z * factor)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        self * -1.0
    }
}

/// A rotation followed by a shift: `world = x·p.x + y·p.y + z·p.z + at`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pose {
    pub at: Vec3,
    pub x: Vec3,
    pub y: Vec3,
    pub z: Vec3,
}

impl Pose {
    pub const IDENTITY: Self =
        Self { at: Vec3::ZERO, x: vec3(1.0, 0.0, 0.0), y: vec3(0.0, 1.0, 0.0), z: vec3(0.0, 0.0, 1.0) };

    /// No rotation, only a shift.
    #[inline]
    pub fn shift(at: Vec3) -> Self {
        Self { at, ..Self::IDENTITY }
    }

    /// Turns y towards z.
    #[inline]
    pub fn about_x(angle: f32) -> Self {
        let (s, c) = angle.sin_cos();
        Self { y: vec3(0.0, c, s), z: vec3(0.0, -s, c), ..Self::IDENTITY }
    }

    /// Turns z towards x.
    #[inline]
    pub fn about_y(angle: f32) -> Self {
        let (s, c) = angle.sin_cos();
        Self { x: vec3(c, 0.0, -s), z: vec3(s, 0.0, c), ..Self::IDENTITY }
    }

    /// Turns x towards y.
    #[inline]
    pub fn about_z(angle: f32) -> Self {
        let (s, c) = angle.sin_cos();
        Self { x: vec3(c, s, 0.0), y: vec3(-s, c, 0.0), ..Self::IDENTITY }
    }

    /// A direction of the body's own frame, in the world's.
    #[inline]
    pub fn turn(&self, v: Vec3) -> Vec3 {
        self.x * v.x + self.y * v.y + self.z * v.z
    }

    /// A direction of the world's frame, in the body's own.
    #[inline]
    pub fn turn_back(&self, v: Vec3) -> Vec3 {
        vec3(self.x.dot(v), self.y.dot(v), self.z.dot(v))
    }

    /// A point of the body's own frame, in the world's.
    #[inline]
    pub fn place(&self, p: Vec3) -> Vec3 {
        self.turn(p) + self.at
    }

    /// A point of the world, in the body's own frame.
    #[inline]
    pub fn place_back(&self, p: Vec3) -> Vec3 {
        self.turn_back(p - self.at)
    }

    /// First `inner`, then `self`: the pose of a child whose parent has this one.
    #[inline]
    pub fn then(&self, inner: &Self) -> Self {
        Self { at: self.place(inner.at), x: self.turn(inner.x), y: self.turn(inner.y), z: self.turn(inner.z) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::FRAC_PI_2;

    fn near(a: Vec3, b: Vec3) -> bool {
        (a - b).length() < 1e-5
    }

    #[test]
    fn quarter_turns_take_axes_to_axes() {
        let (x, y, z) = (vec3(1.0, 0.0, 0.0), Vec3::UP, vec3(0.0, 0.0, 1.0));
        assert!(near(Pose::about_x(FRAC_PI_2).turn(y), z));
        assert!(near(Pose::about_y(FRAC_PI_2).turn(z), x));
        assert!(near(Pose::about_z(FRAC_PI_2).turn(x), y));
    }

    #[test]
    fn a_pose_is_undone_and_composed() {
        let outer = Pose::shift(vec3(1.0, 2.0, 3.0)).then(&Pose::about_x(0.3));
        let inner = Pose::shift(vec3(0.0, -1.0, 0.5)).then(&Pose::about_y(-1.1)).then(&Pose::about_z(2.0));
        let p = vec3(0.3, -0.7, 1.9);
        assert!(near(outer.then(&inner).place(p), outer.place(inner.place(p))));
        assert!(near(inner.place_back(inner.place(p)), p));
    }
}
