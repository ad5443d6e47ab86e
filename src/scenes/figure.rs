//! Jointed human figures: proportions, joint angles drawn at random, and the bodies they come to.

use super::scene::Body;
use super::shape::Shape;
use super::texture::{Pattern, Texture};
use super::vector::{Pose, Vec3, vec3};
use rand::Rng;
use std::f32::consts::FRAC_PI_2;

const HEAD: u8 = 1;
const TORSO: u8 = 2;
const UPPER_ARM: u8 = 3;
const LOWER_ARM: u8 = 4;
const UPPER_LEG: u8 = 5;
const LOWER_LEG: u8 = 6;

/// What a figure wears, and the colours of its skin and hair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clothes {
    pub skin: Vec3,
    pub hair: Vec3,
    pub shirt: Texture,
    pub trousers: Texture,
    pub shoes: Vec3,
    pub sleeves: Length,
    pub legs: Length,
}

/// How far cloth covers a limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// To the elbow or knee.
    Short,
    /// To the hand or foot.
    Long,
}

/// Angles in radians; zero everywhere stands to attention. Pairs are left and right.
#[derive(Clone, Copy, Debug, Default)]
struct Joints {
    lean: f32,
    twist: f32,
    head: f32,
    arm_swing: [f32; 2],
    arm_spread: [f32; 2],
    elbow: [f32; 2],
    leg_swing: [f32; 2],
    leg_spread: [f32; 2],
    knee: [f32; 2],
}

/// How the whole figure meets the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stance {
    Upright,
    Sitting,
    OnBack,
    OnSide,
}

/// A figure `height` metres tall in a random pose, around the origin, facing +z before `heading` turns it about y.
pub(crate) fn figure(rng: &mut impl Rng, height: f32, heading: f32, clothes: &Clothes) -> Vec<Body> {
    let stance = match rng.random_range(0..20) {
        0..14 => Stance::Upright,
        14..16 => Stance::Sitting,
        16..18 => Stance::OnBack,
        _ => Stance::OnSide,
    };
    let joints = joints(rng, stance);
    let fallen = match stance {
        Stance::Upright | Stance::Sitting => Pose::IDENTITY,
        Stance::OnBack => Pose::about_x(-FRAC_PI_2),
        Stance::OnSide => Pose::about_z(if rng.random_bool(0.5) { FRAC_PI_2 } else { -FRAC_PI_2 }),
    };
    bodies(&Pose::about_y(heading).then(&fallen), height, &joints, clothes)
}

fn joints(rng: &mut impl Rng, stance: Stance) -> Joints {
    let mut degrees = |low: f32, high: f32| rng.random_range(low..high).to_radians();
    let mut pair = |low: f32, high: f32| [degrees(low, high), degrees(low, high)];
    let mut joints = Joints { leg_spread: pair(2.0, 14.0), ..Joints::default() };
    [joints.head, joints.twist] = pair(-35.0, 35.0);
    joints.twist *= 0.5;
    match stance {
        Stance::Upright => {
            joints.lean = pair(-4.0, 12.0)[0];
            (joints.arm_swing, joints.arm_spread) = (pair(-35.0, 80.0), pair(8.0, 95.0));
            (joints.elbow, joints.knee) = (pair(0.0, 100.0), pair(0.0, 20.0));
            let stride = pair(-28.0, 28.0)[0];
            joints.leg_swing = [stride, -stride * 0.8];
            joints.knee[usize::from(stride > 0.0)] += stride.abs();
        }
        Stance::Sitting => {
            joints.lean = pair(-12.0, 10.0)[0];
            (joints.arm_swing, joints.arm_spread) = (pair(0.0, 70.0), pair(8.0, 50.0));
            joints.elbow = pair(0.0, 60.0);
            let raised = pair(0.0, 40.0);
            joints.leg_swing = raised.map(|angle| FRAC_PI_2 + angle);
            joints.knee = raised.map(|angle| 2.0 * angle);
        }
        Stance::OnBack => {
            (joints.arm_swing, joints.arm_spread) = (pair(0.0, 8.0), pair(10.0, 150.0));
            (joints.elbow, joints.leg_spread) = (pair(0.0, 70.0), pair(3.0, 28.0));
        }
        Stance::OnSide => {
            (joints.arm_swing, joints.arm_spread) = (pair(10.0, 120.0), pair(0.0, 6.0));
            (joints.elbow, joints.leg_spread) = (pair(0.0, 80.0), pair(0.0, 4.0));
            (joints.leg_swing, joints.knee) = (pair(0.0, 55.0), pair(0.0, 70.0));
        }
    }
    joints
}

/// From soles to crown in the lengths below.
const CROWN: f32 = 1.0375;

/// Puts bodies of one figure together; lengths are in `1 / CROWN` of its height.
struct Builder<'a> {
    unit: f32,
    clothes: &'a Clothes,
    bodies: Vec<Body>,
}

impl Builder<'_> {
    fn push(&mut self, frame: &Pose, at: Vec3, shape: Shape, part: u8, texture: Texture) {
        let pose = frame.then(&Pose::shift(at * self.unit));
        self.bodies.push(Body::new(shape, pose, texture, 0.05, part));
    }

    fn capsule(&self, radius: f32, length: f32) -> Shape {
        Shape::Capsule { radius: radius * self.unit, half: 0.5 * length * self.unit }
    }

    fn rounded(&self, half: Vec3, radius: f32) -> Shape {
        Shape::Rounded { half: half * self.unit, radius: radius * self.unit }
    }

    /// The frame at `at` of `frame`, turned.
    fn joint(&self, frame: &Pose, at: Vec3, turn: &Pose) -> Pose {
        frame.then(&Pose::shift(at * self.unit)).then(turn)
    }

    fn cover(&self, length: Length, cloth: Texture) -> Texture {
        if length == Length::Long { cloth } else { Texture::plain(self.clothes.skin) }
    }

    fn trunk(&mut self, pelvis: &Pose, torso: &Pose, head: f32) {
        let clothes = *self.clothes;
        self.push(
            pelvis,
            vec3(0.0, 0.005, 0.0),
            self.rounded(vec3(0.098, 0.055, 0.068), 0.05),
            TORSO,
            clothes.trousers,
        );
        self.push(torso, vec3(0.0, 0.19, 0.0), self.rounded(vec3(0.118, 0.15, 0.068), 0.055), TORSO, clothes.shirt);
        let skin = Texture::plain(clothes.skin);
        self.push(torso, vec3(0.0, 0.35, 0.0), self.capsule(0.032, 0.05), TORSO, skin);
        let pattern = Pattern::Head(0.064 * self.unit);
        let hair = Texture { pattern, first: clothes.skin, second: clothes.hair };
        let skull = self.joint(torso, vec3(0.0, 0.365, 0.0), &Pose::about_y(head));
        self.push(&skull, vec3(0.0, 0.078, 0.01), self.capsule(0.064, 0.035), HEAD, hair);
    }

    fn arm(&mut self, torso: &Pose, side: f32, swing: f32, spread: f32, elbow: f32) {
        let turn = Pose::about_z(side * spread).then(&Pose::about_x(-swing));
        let shoulder = self.joint(torso, vec3(side * 0.128, 0.295, 0.0), &turn);
        self.push(&shoulder, vec3(0.0, -0.075, 0.0), self.capsule(0.037, 0.15), UPPER_ARM, self.clothes.shirt);
        let elbow = self.joint(&shoulder, vec3(0.0, -0.165, 0.0), &Pose::about_x(-elbow));
        let sleeve = self.cover(self.clothes.sleeves, self.clothes.shirt);
        self.push(&elbow, vec3(0.0, -0.065, 0.0), self.capsule(0.029, 0.13), LOWER_ARM, sleeve);
        let skin = Texture::plain(self.clothes.skin);
        self.push(&elbow, vec3(0.0, -0.17, 0.0), self.capsule(0.032, 0.025), LOWER_ARM, skin);
    }

    fn leg(&mut self, pelvis: &Pose, side: f32, swing: f32, spread: f32, knee: f32) {
        let turn = Pose::about_z(side * spread).then(&Pose::about_x(-swing));
        let hip = self.joint(pelvis, vec3(side * 0.056, -0.02, 0.0), &turn);
        self.push(&hip, vec3(0.0, -0.11, 0.0), self.capsule(0.054, 0.2), UPPER_LEG, self.clothes.trousers);
        let knee = self.joint(&hip, vec3(0.0, -0.23, 0.0), &Pose::about_x(knee));
        let cover = self.cover(self.clothes.legs, self.clothes.trousers);
        self.push(&knee, vec3(0.0, -0.11, 0.0), self.capsule(0.04, 0.2), LOWER_LEG, cover);
        let shoe = Texture::plain(self.clothes.shoes);
        let foot = self.rounded(vec3(0.038, 0.028, 0.078), 0.025);
        self.push(&knee, vec3(0.0, -0.235, 0.032), foot, LOWER_LEG, shoe);
    }
}

fn bodies(root: &Pose, height: f32, joints: &Joints, clothes: &Clothes) -> Vec<Body> {
    let mut builder = Builder { unit: height / CROWN, clothes, bodies: Vec::with_capacity(16) };
    let torso = root.then(&Pose::about_y(joints.twist)).then(&Pose::about_x(joints.lean));
    builder.trunk(root, &torso, joints.head);
    for (i, side) in [(0, -1.0), (1, 1.0)] {
        builder.arm(&torso, side, joints.arm_swing[i], joints.arm_spread[i], joints.elbow[i]);
        builder.leg(root, side, joints.leg_swing[i], joints.leg_spread[i], joints.knee[i]);
    }
    builder.bodies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::scene::extent;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn clothes() -> Clothes {
        let cloth = Texture::plain(Vec3::splat(0.5));
        let (sleeves, legs) = (Length::Short, Length::Long);
        Clothes {
            skin: Vec3::splat(0.7),
            hair: Vec3::ZERO,
            shirt: cloth,
            trousers: cloth,
            shoes: Vec3::ZERO,
            sleeves,
            legs,
        }
    }

    #[test]
    fn at_attention_it_is_as_tall_as_asked_and_has_every_part() {
        let bodies = bodies(&Pose::IDENTITY, 1.8, &Joints::default(), &clothes());
        let (low, high) = extent(&bodies);
        assert!((high.y - low.y - 1.8).abs() < 0.005, "{}", high.y - low.y);
        assert!(high.x - low.x < 0.7 && (high.x + low.x).abs() < 1e-4, "narrow and symmetric");
        for part in 1..=6 {
            assert!(bodies.iter().any(|body| body.part == part), "part {part}");
        }
    }

    #[test]
    fn positive_angles_lift_arms_outwards_and_forwards_and_bend_knees_back() {
        let joints = Joints { arm_spread: [FRAC_PI_2; 2], ..Joints::default() };
        let (low, high) = extent(&bodies(&Pose::IDENTITY, 1.0, &joints, &clothes()));
        assert!(high.x > 0.45 && low.x < -0.45);
        let joints = Joints { arm_swing: [FRAC_PI_2; 2], knee: [FRAC_PI_2; 2], ..Joints::default() };
        let (low, high) = extent(&bodies(&Pose::IDENTITY, 1.0, &joints, &clothes()));
        assert!(high.z > 0.3, "hands forward: {}", high.z);
        assert!(low.z < -0.2, "feet back: {}", low.z);
    }

    #[test]
    fn poses_vary_and_some_lie() {
        let mut rng = StdRng::seed_from_u64(3);
        let heights: Vec<f32> = (0..60)
            .map(|_| extent(&figure(&mut rng, 1.7, 0.4, &clothes())))
            .map(|(low, high)| high.y - low.y)
            .collect();
        assert!(heights.iter().filter(|h| **h < 0.75).count() >= 3);
        assert!(heights.iter().filter(|h| **h > 1.45).count() >= 30);
    }
}
