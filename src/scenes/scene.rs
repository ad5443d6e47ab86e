//! A scene: things in a room, lights and a camera; what a ray meets first and which lights it sees.

use super::shape::{Ray, Shape, box_face_normal};
use super::texture::Texture;
use super::vector::{Pose, Vec3, vec3};
use std::f32::consts::TAU;

/// One solid of a thing, in the world's frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Body {
    pub shape: Shape,
    pub pose: Pose,
    pub texture: Texture,
    /// Strength of the highlight, 0 for chalk.
    pub gloss: f32,
    /// The part of a person it shows, 1 to 6; 0 for anything else.
    pub part: u8,
    /// The radius of a ball around it.
    bound: f32,
}

/// One object or person: bodies that are labelled together.
#[derive(Clone, Debug)]
pub(crate) struct Thing {
    /// Index into [`super::CLASSES`].
    pub class: u8,
    pub salient: bool,
    pub bodies: Vec<Body>,
    centre: Vec3,
    radius: f32,
    /// The radius of an upright cylinder around the place it was set down at.
    pub girth: f32,
    pub at: Vec3,
}

impl Thing {
    /// Bodies given around the origin, set down at `at` so that the lowest of them touches the floor.
    pub fn standing_at(class: u8, salient: bool, mut bodies: Vec<Body>, at: Vec3) -> Self {
        let girth = girth(&bodies);
        let lowest = bodies.iter().map(|body| -body.reach(-Vec3::UP)).fold(f32::INFINITY, f32::min);
        for body in &mut bodies {
            body.pose.at = body.pose.at + at + Vec3::UP * (-lowest);
        }
        let (low, high) = extent(&bodies);
        let centre = (low + high) * 0.5;
        let reach = |body: &Body| (body.pose.at - centre).length() + body.bound;
        let radius = bodies.iter().map(reach).fold(0.0, f32::max);
        Self { class, salient, bodies, centre, radius, girth, at }
    }

    pub fn centre(&self) -> Vec3 {
        self.centre
    }
}

impl Body {
    pub fn new(shape: Shape, pose: Pose, texture: Texture, gloss: f32, part: u8) -> Self {
        Self { shape, pose, texture, gloss, part, bound: shape.bound() }
    }

    /// The greatest `p · direction` over its points, in the world's frame.
    pub fn reach(&self, direction: Vec3) -> f32 {
        self.pose.at.dot(direction) + self.shape.reach(self.pose.turn_back(direction))
    }

    /// Where a ray enters, if that is before `before`.
    fn enter(&self, ray: &Ray, before: f32) -> Option<(f32, u8)> {
        let start = (enter_ball(ray, self.pose.at, self.bound)? - 0.02).max(0.0);
        if start >= before {
            return None;
        }
        // Starting just before the bounding ball keeps the numbers small and so the quadratics exact.
        let local = Ray { from: self.pose.place_back(ray.at(start)), to: self.pose.turn_back(ray.to) };
        let entry = self.shape.enter(&local)?;
        let t = start + entry.t;
        (t < before).then_some((t, entry.face))
    }
}

/// The corners of the axis-aligned box around bodies.
pub(crate) fn extent(bodies: &[Body]) -> (Vec3, Vec3) {
    let most = |direction: Vec3| bodies.iter().map(|body| body.reach(direction)).fold(f32::NEG_INFINITY, f32::max);
    let (x, z) = (vec3(1.0, 0.0, 0.0), vec3(0.0, 0.0, 1.0));
    (-vec3(most(-x), most(-Vec3::UP), most(-z)), vec3(most(x), most(Vec3::UP), most(z)))
}

/// The radius of an upright cylinder around the origin that holds all bodies, from how far they reach in 16 directions.
fn girth(bodies: &[Body]) -> f32 {
    let directions = (0..16).map(|i| (i as f32 * TAU / 16.0).sin_cos()).map(|(s, c)| vec3(s, 0.0, c));
    let most = |direction: Vec3| bodies.iter().map(|body| body.reach(direction)).fold(0.0, f32::max);
    directions.map(most).fold(0.0, f32::max) * 1.02
}

/// Where a ray enters a ball, negative if it starts inside; none if it misses or has left it behind.
#[inline]
fn enter_ball(ray: &Ray, centre: Vec3, radius: f32) -> Option<f32> {
    let from = ray.from - centre;
    let b = from.dot(ray.to);
    let off = from - ray.to * b;
    let root = radius * radius - off.dot(off);
    if root < 0.0 {
        return None;
    }
    let half = root.sqrt();
    (half - b > 0.0).then_some(-b - half)
}

/// A closed room, seen from inside.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub low: Vec3,
    pub high: Vec3,
    pub floor: Texture,
    pub walls: Texture,
    pub ceiling: Texture,
}

impl Room {
    /// Where a ray from inside meets the room: the distance and the face, numbered as those of a box.
    fn leave(&self, ray: &Ray) -> (f32, u8) {
        let (from, to) = (ray.from.array(), ray.to.array());
        let (low, high) = (self.low.array(), self.high.array());
        let mut best = (f32::INFINITY, 2);
        for axis in (0..3).filter(|axis| to[*axis] != 0.0) {
            let bound = if to[axis] > 0.0 { high[axis] } else { low[axis] };
            let t = ((bound - from[axis]) / to[axis]).max(0.0);
            if t < best.0 {
                best = (t, 2 * axis as u8 + u8::from(to[axis] > 0.0));
            }
        }
        best
    }

    fn texture(&self, face: u8) -> &Texture {
        match face {
            2 => &self.floor,
            3 => &self.ceiling,
            _ => &self.walls,
        }
    }
}

/// A point that shines alike in all directions and at all distances.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Light {
    pub at: Vec3,
    pub colour: Vec3,
}

/// A pinhole camera.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Camera {
    pub eye: Vec3,
    pub right: Vec3,
    pub up: Vec3,
    pub forward: Vec3,
    /// Focal length as a multiple of the image's longer side.
    pub focal: f32,
}

impl Camera {
    pub fn look(eye: Vec3, target: Vec3, roll: f32, focal: f32) -> Self {
        let forward = (target - eye).unit();
        let level = Vec3::UP.cross(forward).unit();
        let upright = forward.cross(level);
        let (s, c) = roll.sin_cos();
        Self { eye, right: level * c + upright * s, up: upright * c - level * s, forward, focal }
    }

    /// The ray through a point of the image, in pixels from the upper left corner.
    pub fn ray(&self, x: f32, y: f32, (height, width): (usize, usize)) -> Ray {
        let focal = self.focal * height.max(width) as f32;
        let (u, v) = ((x - width as f32 * 0.5) / focal, (height as f32 * 0.5 - y) / focal);
        Ray { from: self.eye, to: (self.forward + self.right * u + self.up * v).unit() }
    }

    /// The pixel at which a point of the world is seen, if it lies in front.
    pub fn project(&self, p: Vec3, (height, width): (usize, usize)) -> Option<(f32, f32)> {
        let focal = self.focal * height.max(width) as f32;
        let seen = p - self.eye;
        let depth = seen.dot(self.forward);
        let at = |axis: Vec3| seen.dot(axis) / depth * focal;
        (depth > 1e-3).then(|| (width as f32 * 0.5 + at(self.right), height as f32 * 0.5 - at(self.up)))
    }

    /// Distance along the axis.
    pub fn depth(&self, p: Vec3) -> f32 {
        (p - self.eye).dot(self.forward)
    }

    /// A direction as labels give it: x right, y down, z towards the viewer.
    pub fn direction(&self, v: Vec3) -> Vec3 {
        vec3(v.dot(self.right), -v.dot(self.up), -v.dot(self.forward))
    }
}

/// What a ray met first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    pub point: Vec3,
    /// The unit normal in the world's frame.
    pub normal: Vec3,
    /// The index of a thing, none for the room.
    pub thing: Option<usize>,
    /// Unlike across every boundary that the edge label draws: thing, and its part or smooth face.
    pub region: u32,
    /// The part of a person, or 0.
    pub part: u8,
    /// The colour of the surface, in linear light.
    pub colour: Vec3,
    pub gloss: f32,
}

/// All that a picture is made of.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub room: Room,
    pub things: Vec<Thing>,
    pub lights: Vec<Light>,
    /// Light from above and below that reaches everywhere.
    pub ambient: Vec3,
    pub camera: Camera,
    /// The colour of the haze, and the share of it that a metre adds.
    pub fog: (Vec3, f32),
    /// Standard deviation of the camera's noise.
    pub noise: f32,
}

impl Scene {
    /// The first surface along a ray.
    pub fn trace(&self, ray: &Ray) -> Hit {
        let (mut t, face) = self.room.leave(ray);
        let mut first = None;
        for (index, thing) in self.things.iter().enumerate() {
            let Some(start) = enter_ball(ray, thing.centre, thing.radius) else { continue };
            if start >= t {
                continue;
            }
            for body in &thing.bodies {
                if let Some((nearer, face)) = body.enter(ray, t) {
                    t = nearer;
                    first = Some((index, body, face));
                }
            }
        }
        match first {
            Some((index, body, face)) => thing_hit(ray.at(t), index, body, face),
            None => self.room_hit(ray.at(t), face),
        }
    }

    fn room_hit(&self, point: Vec3, face: u8) -> Hit {
        let colour = self.room.texture(face).colour(point);
        Hit { point, normal: -box_face_normal(face), thing: None, region: u32::from(face), part: 0, colour, gloss: 0.0 }
    }

    /// Whether anything stands between a point and a light.
    pub fn shadowed(&self, point: Vec3, light: &Light) -> bool {
        let way = light.at - point;
        let (ray, until) = (Ray { from: point, to: way.unit() }, way.length());
        self.things.iter().any(|thing| {
            enter_ball(&ray, thing.centre, thing.radius).is_some_and(|start| start < until)
                && thing.bodies.iter().any(|body| body.enter(&ray, until).is_some())
        })
    }

    /// The share of the image that each thing fills, from about `rays` rays a side.
    pub fn shares(&self, size: (usize, usize), rays: usize) -> Vec<f32> {
        let mut counts = vec![0usize; self.things.len()];
        for i in 0..rays * rays {
            let at = |k: usize, side: usize| (k as f32 + 0.5) / rays as f32 * side as f32;
            let ray = self.camera.ray(at(i % rays, size.1), at(i / rays, size.0), size);
            if let Some(thing) = self.trace(&ray).thing {
                counts[thing] += 1;
            }
        }
        counts.into_iter().map(|count| count as f32 / (rays * rays) as f32).collect()
    }
}

fn thing_hit(point: Vec3, index: usize, body: &Body, face: u8) -> Hit {
    let local = body.pose.place_back(point);
    let normal = body.pose.turn(body.shape.normal(local, face)).unit();
    let piece = if body.part > 0 { body.part } else { face };
    let region = (index as u32 + 1) << 8 | u32::from(piece);
    let colour = body.texture.colour(local);
    Hit { point, normal, thing: Some(index), region, part: body.part, colour, gloss: body.gloss }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A red ball of radius 0.5 whose centre is 3 m straight ahead of a level camera at its height.
    pub(crate) fn one_ball() -> Scene {
        let ball =
            Body::new(Shape::Sphere { radius: 0.5 }, Pose::IDENTITY, Texture::plain(vec3(1.0, 0.0, 0.0)), 0.0, 0);
        let grey = Texture::plain(Vec3::splat(0.5));
        let (low, high) = (vec3(-3.0, 0.0, -1.0), vec3(3.0, 3.0, 5.0));
        Scene {
            room: Room { low, high, floor: grey, walls: grey, ceiling: grey },
            things: vec![Thing::standing_at(1, true, vec![ball], vec3(0.0, 0.0, 3.0))],
            lights: vec![Light { at: vec3(0.0, 2.9, 0.0), colour: Vec3::splat(0.7) }],
            ambient: Vec3::splat(0.3),
            camera: Camera::look(vec3(0.0, 0.5, 0.0), vec3(0.0, 0.5, 3.0), 0.0, 1.0),
            fog: (Vec3::ZERO, 0.0),
            noise: 0.0,
        }
    }

    #[test]
    fn the_central_ray_meets_the_ball_at_two_and_a_half_metres() {
        let scene = one_ball();
        let hit = scene.trace(&scene.camera.ray(32.0, 32.0, (64, 64)));
        assert_eq!(hit.thing, Some(0));
        assert!((scene.camera.depth(hit.point) - 2.5).abs() < 1e-5);
        assert!((scene.camera.direction(hit.normal) - vec3(0.0, 0.0, 1.0)).length() < 1e-5, "it faces the viewer");
    }

    #[test]
    fn floor_looks_up_and_the_left_wall_looks_right() {
        let scene = one_ball();
        let seen = |x, y| {
            let hit = scene.trace(&scene.camera.ray(x, y, (64, 64)));
            (hit.thing, scene.camera.direction(hit.normal))
        };
        assert_eq!(seen(32.0, 63.0), (None, vec3(0.0, -1.0, 0.0)));
        let ray = Ray { from: scene.camera.eye, to: vec3(-1.0, 0.0, 0.2).unit() };
        assert_eq!(scene.trace(&ray).normal, vec3(1.0, 0.0, 0.0));
        assert_eq!(seen(60.0, 10.0), (None, vec3(0.0, 0.0, 1.0)), "the back wall");
    }

    #[test]
    fn the_ball_shades_what_lies_behind_it_alone() {
        let scene = one_ball();
        let light = &scene.lights[0];
        assert!(scene.shadowed(vec3(0.0, 0.001, 3.3), light));
        assert!(!scene.shadowed(vec3(1.5, 0.001, 3.3), light));
        assert!(!scene.shadowed(vec3(0.0, 1.002, 3.0), light), "its own top");
        assert!(!scene.shadowed(vec3(0.0, 2.95, 0.0), light));
    }

    #[test]
    fn projection_undoes_the_ray() {
        let camera = Camera::look(vec3(0.2, 1.5, 0.1), vec3(0.0, 0.4, 3.0), 0.1, 1.2);
        let ray = camera.ray(17.3, 40.6, (48, 80));
        let (x, y) = camera.project(ray.at(2.7), (48, 80)).unwrap();
        assert!((x - 17.3).abs() < 1e-3 && (y - 40.6).abs() < 1e-3, "{x} {y}");
    }
}
