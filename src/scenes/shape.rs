//! Solid shapes, each in a frame of its own: where a ray enters them and which way their surface looks.

use super::vector::{Vec3, vec3};

/// A ray's direction has length one, so that `t` is a distance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ray {
    pub from: Vec3,
    pub to: Vec3,
}

impl Ray {
    #[inline]
    pub fn at(&self, t: f32) -> Vec3 {
        self.from + self.to * t
    }
}

/// A solid centred on the origin, its axis (where it has one) along y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Sphere {
        radius: f32,
    },
    /// `half`: half of its width, height and depth.
    Box {
        half: Vec3,
    },
    /// A box whose edges are rounded; `half` includes the rounding.
    Rounded {
        half: Vec3,
        radius: f32,
    },
    Cylinder {
        radius: f32,
        half: f32,
    },
    /// Apex at `y = half`, base of `radius` at `y = -half`.
    Cone {
        radius: f32,
        half: f32,
    },
    /// A tube of radius `minor` around a circle of radius `major` that lies flat.
    Torus {
        major: f32,
        minor: f32,
    },
    /// A ball of `radius` drawn along y from `-half` to `half`.
    Capsule {
        radius: f32,
        half: f32,
    },
}

/// Where a ray enters a shape: the distance, and which of the shape's smooth faces it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entrance {
    pub t: f32,
    pub face: u8,
}

const SIDE: u8 = 0;
const TOP: u8 = 1;
const BOTTOM: u8 = 2;

/// Nearer than this, a marched ray has arrived.
const ARRIVED: f32 = 1e-4;
/// Enough for rays that graze one side of a torus before they meet the other.
const MARCH_STEPS: usize = 400;

impl Shape {
    /// Where a ray that starts outside enters the shape, beyond `t = 0`.
    pub fn enter(&self, ray: &Ray) -> Option<Entrance> {
        match *self {
            Self::Sphere { radius } => enter_sphere(ray, radius),
            Self::Box { half } => enter_box(ray, half),
            Self::Cylinder { radius, half } => enter_cylinder(ray, radius, half),
            Self::Cone { radius, half } => enter_cone(ray, radius, half),
            Self::Capsule { radius, half } => enter_capsule(ray, radius, half),
            Self::Torus { .. } => self.march(ray),
            Self::Rounded { .. } => self.close_in(ray),
        }
    }

    /// The outward unit normal at a point of the given face.
    pub fn normal(&self, p: Vec3, face: u8) -> Vec3 {
        match *self {
            Self::Sphere { .. } => p.unit(),
            Self::Box { .. } => box_face_normal(face),
            Self::Rounded { half, radius } => {
                let core = half - Vec3::splat(radius);
                (p - clamp(p, core)).unit()
            }
            Self::Cylinder { .. } | Self::Cone { .. } if face == TOP => Vec3::UP,
            Self::Cylinder { .. } | Self::Cone { .. } if face == BOTTOM => -Vec3::UP,
            Self::Cylinder { .. } => vec3(p.x, 0.0, p.z).unit(),
            Self::Cone { radius, half } => {
                let out = vec3(p.x, 0.0, p.z).unit();
                (out + Vec3::UP * (radius / (2.0 * half))).unit()
            }
            Self::Torus { major, .. } => (p - vec3(p.x, 0.0, p.z).unit() * major).unit(),
            Self::Capsule { half, .. } => (p - Vec3::UP * p.y.clamp(-half, half)).unit(),
        }
    }

    /// The signed distance to the surface, negative inside.
    pub fn distance(&self, p: Vec3) -> f32 {
        let around = hypotenuse(p.x, p.z);
        match *self {
            Self::Sphere { radius } => p.length() - radius,
            Self::Box { half } => box_distance(p, half),
            Self::Rounded { half, radius } => box_distance(p, half - Vec3::splat(radius)) - radius,
            Self::Cylinder { radius, half } => {
                let (out, over) = (around - radius, p.y.abs() - half);
                out.max(over).min(0.0) + hypotenuse(out.max(0.0), over.max(0.0))
            }
            Self::Cone { radius, half } => cone_distance(around, p.y, radius, half),
            Self::Torus { major, minor } => hypotenuse(around - major, p.y) - minor,
            Self::Capsule { radius, half } => (p - Vec3::UP * p.y.clamp(-half, half)).length() - radius,
        }
    }

    /// How far the shape reaches in a unit direction: the greatest `p · direction` over its points.
    pub fn reach(&self, direction: Vec3) -> f32 {
        let (along, around) = (direction.y, hypotenuse(direction.x, direction.z));
        match *self {
            Self::Sphere { radius } => radius,
            Self::Box { half } => half.dot(direction.abs()),
            Self::Rounded { half, radius } => (half - Vec3::splat(radius)).dot(direction.abs()) + radius,
            Self::Cylinder { radius, half } => half * along.abs() + radius * around,
            Self::Cone { radius, half } => (half * along).max(radius * around - half * along),
            Self::Torus { major, minor } => major * around + minor,
            Self::Capsule { radius, half } => half * along.abs() + radius,
        }
    }

    /// The radius of a ball around the origin that holds the shape.
    pub fn bound(&self) -> f32 {
        match *self {
            Self::Sphere { radius } => radius,
            Self::Box { half } | Self::Rounded { half, .. } => half.length(),
            Self::Cylinder { radius, half } | Self::Cone { radius, half } => hypotenuse(radius, half),
            Self::Torus { major, minor } => major + minor,
            Self::Capsule { radius, half } => radius + half,
        }
    }

    /// Walks along the ray to the plane that touches the nearest point of the surface: nothing of a convex shape lies
    /// before it, and a ray that leads away from it misses.
    fn close_in(&self, ray: &Ray) -> Option<Entrance> {
        let mut t = 0.0;
        for _ in 0..MARCH_STEPS {
            let p = ray.at(t);
            let distance = self.distance(p);
            if distance < ARRIVED {
                return Some(Entrance { t, face: SIDE });
            }
            let approach = -self.normal(p, SIDE).dot(ray.to);
            if approach <= 0.0 {
                return None;
            }
            t += distance / approach;
        }
        None
    }

    /// Walks along the ray by the distance to the surface, which can never step over it.
    fn march(&self, ray: &Ray) -> Option<Entrance> {
        let bound = self.bound();
        let mut t = 0.0;
        for _ in 0..MARCH_STEPS {
            let p = ray.at(t);
            let distance = self.distance(p);
            if distance < ARRIVED {
                return Some(Entrance { t, face: SIDE });
            }
            t += distance;
            if p.dot(ray.to) > bound {
                return None;
            }
        }
        None
    }
}

/// Faster than `hypot`, whose care for very large and small numbers no scene needs.
#[inline]
fn hypotenuse(a: f32, b: f32) -> f32 {
    (a * a + b * b).sqrt()
}

#[inline]
fn clamp(p: Vec3, limit: Vec3) -> Vec3 {
    let limit = vec3(limit.x.max(0.0), limit.y.max(0.0), limit.z.max(0.0));
    vec3(p.x.clamp(-limit.x, limit.x), p.y.clamp(-limit.y, limit.y), p.z.clamp(-limit.z, limit.z))
}

fn box_distance(p: Vec3, half: Vec3) -> f32 {
    let q = p.abs() - half;
    vec3(q.x.max(0.0), q.y.max(0.0), q.z.max(0.0)).length() + q.x.max(q.y).max(q.z).min(0.0)
}

/// In the half-plane of (distance from the axis, height): to the slanted side and to the base.
fn cone_distance(around: f32, y: f32, radius: f32, half: f32) -> f32 {
    let slant = hypotenuse(radius, 2.0 * half);
    let along = ((radius - around) * radius + (y + half) * 2.0 * half) / (slant * slant);
    let s = along.clamp(0.0, 1.0);
    let side = hypotenuse(around - radius * (1.0 - s), y - (2.0 * half * s - half));
    let base = hypotenuse(around - around.min(radius), y + half);
    let inside = y > -half && around * 2.0 * half < radius * (half - y);
    let distance = side.min(base);
    if inside { -distance } else { distance }
}

fn enter_sphere(ray: &Ray, radius: f32) -> Option<Entrance> {
    let b = ray.from.dot(ray.to);
    let root = b * b - ray.from.dot(ray.from) + radius * radius;
    let t = -b - root.max(0.0).sqrt();
    (root >= 0.0 && t > 0.0).then_some(Entrance { t, face: SIDE })
}

/// Faces 0 to 5: -x, +x, -y, +y, -z, +z.
pub(crate) fn box_face_normal(face: u8) -> Vec3 {
    let sign = if face % 2 == 1 { 1.0 } else { -1.0 };
    match face / 2 {
        0 => vec3(sign, 0.0, 0.0),
        1 => vec3(0.0, sign, 0.0),
        _ => vec3(0.0, 0.0, sign),
    }
}

fn enter_box(ray: &Ray, half: Vec3) -> Option<Entrance> {
    let mut entry = Entrance { t: 0.0, face: u8::MAX };
    let mut exit = f32::INFINITY;
    let (from, to, half) = (ray.from.array(), ray.to.array(), half.array());
    for axis in 0..3 {
        let inverse = 1.0 / to[axis];
        let (near, far) =
            ((-half[axis] * to[axis].signum() - from[axis]), (half[axis] * to[axis].signum() - from[axis]));
        let (near, far) = (near * inverse, far * inverse);
        if near > entry.t {
            let face = 2 * axis as u8 + u8::from(to[axis] < 0.0);
            entry = Entrance { t: near, face };
        }
        exit = exit.min(far);
    }
    (entry.face != u8::MAX && entry.t <= exit).then_some(entry)
}

/// The first of two candidates.
fn nearer(a: Option<Entrance>, b: Option<Entrance>) -> Option<Entrance> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a.t <= b.t { a } else { b }),
        (a, b) => a.or(b),
    }
}

/// The disc of `radius` at height `y`, if the ray comes at it from the side its face looks to.
fn enter_disc(ray: &Ray, radius: f32, y: f32, face: u8) -> Option<Entrance> {
    let facing = if face == TOP { ray.to.y < 0.0 } else { ray.to.y > 0.0 };
    let t = (y - ray.from.y) / ray.to.y;
    let p = ray.at(t);
    (facing && t > 0.0 && p.x * p.x + p.z * p.z <= radius * radius).then_some(Entrance { t, face })
}

/// Where the ray enters an endless upright tube, and the square of its speed across the axis: 0 along it, with no number for where.
fn enter_tube(ray: &Ray, radius: f32) -> Option<(f32, f32)> {
    let (o, d) = (ray.from, ray.to);
    let (a, b) = (d.x * d.x + d.z * d.z, o.x * d.x + o.z * d.z);
    let root = b * b - a * (o.x * o.x + o.z * o.z - radius * radius);
    (root >= 0.0).then(|| ((-b - root.sqrt()) / a, a))
}

fn enter_cylinder(ray: &Ray, radius: f32, half: f32) -> Option<Entrance> {
    let (o, d) = (ray.from, ray.to);
    let (t, _) = enter_tube(ray, radius)?;
    let side = (t > 0.0 && (o.y + t * d.y).abs() <= half).then_some(Entrance { t, face: SIDE });
    let cap = if d.y < 0.0 { enter_disc(ray, radius, half, TOP) } else { enter_disc(ray, radius, -half, BOTTOM) };
    nearer(side, cap)
}

fn enter_cone(ray: &Ray, radius: f32, half: f32) -> Option<Entrance> {
    let (o, d) = (ray.from, ray.to);
    let k = (radius / (2.0 * half)).powi(2);
    let below = half - o.y;
    let a = d.x * d.x + d.z * d.z - k * d.y * d.y;
    let b = o.x * d.x + o.z * d.z + k * below * d.y;
    let root = b * b - a * (o.x * o.x + o.z * o.z - k * below * below);
    if root < 0.0 {
        return None;
    }
    let on_side = |t: f32| (t > 0.0 && (o.y + t * d.y).abs() <= half).then_some(Entrance { t, face: SIDE });
    let root = root.sqrt();
    let side = nearer(on_side((-b - root) / a), on_side((-b + root) / a));
    nearer(side, enter_disc(ray, radius, -half, BOTTOM))
}

fn enter_capsule(ray: &Ray, radius: f32, half: f32) -> Option<Entrance> {
    let (o, d) = (ray.from, ray.to);
    let (t, a) = enter_tube(ray, radius)?;
    // Along the axis itself (a = 0) the end that the ray comes from is the one it meets.
    let y = if a > 0.0 { o.y + t * d.y } else { -d.y * f32::MAX };
    if y.abs() <= half {
        return (t > 0.0).then_some(Entrance { t, face: SIDE });
    }
    let end = Vec3::UP * y.clamp(-half, half);
    enter_sphere(&Ray { from: o - end, to: d }, radius)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::Sphere { radius: 0.4 },
            Shape::Box { half: vec3(0.3, 0.2, 0.5) },
            Shape::Rounded { half: vec3(0.3, 0.4, 0.2), radius: 0.1 },
            Shape::Cylinder { radius: 0.3, half: 0.4 },
            Shape::Cone { radius: 0.4, half: 0.3 },
            Shape::Torus { major: 0.35, minor: 0.12 },
            Shape::Capsule { radius: 0.1, half: 0.3 },
        ]
    }

    /// Rays from a sphere of radius 2 to points near the origin.
    fn rays(count: usize) -> Vec<Ray> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut point =
            move || vec3(rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0));
        (0..count)
            .map(|_| {
                let from = point().unit() * 2.0;
                Ray { from, to: (point() * 0.4 - from).unit() }
            })
            .collect()
    }

    #[test]
    fn a_ray_enters_where_the_distance_is_zero_and_was_positive_all_along() {
        for shape in shapes() {
            let mut hits = 0;
            for ray in rays(400) {
                let entry = shape.enter(&ray);
                let until = entry.map_or(4.0, |entry| entry.t - 5e-3);
                for step in 0..200 {
                    let t = until * step as f32 / 199.0;
                    assert!(shape.distance(ray.at(t)) > -2e-3, "{shape:?} passed through at {t} of {until}");
                }
                if let Some(entry) = entry {
                    hits += 1;
                    assert!(shape.distance(ray.at(entry.t)).abs() < 3e-4, "{shape:?}");
                }
            }
            assert!(hits > 50, "{shape:?}: {hits} hits");
        }
    }

    #[test]
    fn normals_are_the_gradient_of_the_distance() {
        for shape in shapes() {
            for ray in rays(300) {
                let Some(entry) = shape.enter(&ray) else { continue };
                let normal = shape.normal(ray.at(entry.t), entry.face);
                assert!((normal.length() - 1.0).abs() < 1e-5);
                assert!(normal.dot(ray.to) < 0.05, "{shape:?} {normal:?} looks away from the ray");
                let (p, e) = (ray.at(entry.t) + normal * 0.01, 2e-3);
                let slope = |axis: Vec3| (shape.distance(p + axis * e) - shape.distance(p - axis * e)) / (2.0 * e);
                let gradient = vec3(slope(vec3(1.0, 0.0, 0.0)), slope(Vec3::UP), slope(vec3(0.0, 0.0, 1.0)));
                assert!((gradient - normal).length() < 0.08, "{shape:?}: {gradient:?} {normal:?}");
            }
        }
    }

    #[test]
    fn reach_and_bound_hold_every_point_and_are_touched() {
        for shape in shapes() {
            let points: Vec<Vec3> = rays(20_000).iter().filter_map(|ray| Some(ray.at(shape.enter(ray)?.t))).collect();
            for direction in rays(20).iter().map(|ray| ray.to) {
                let most = points.iter().map(|p| p.dot(direction)).fold(f32::MIN, f32::max);
                let reach = shape.reach(direction);
                assert!(most <= reach + 1e-3 && most > reach - 0.06, "{shape:?}: {most} against {reach}");
            }
            assert!(points.iter().all(|p| p.length() <= shape.bound() + 1e-3));
        }
    }

    #[test]
    fn a_ring_seen_at_a_low_angle_has_no_holes() {
        let ring = Shape::Torus { major: 0.4, minor: 0.12 };
        let from = vec3(0.0, 0.75, -3.0);
        for i in 0..10_000 {
            let (x, y) = ((i % 100) as f32 / 50.0 - 1.0, (i / 100) as f32 / 100.0 - 0.5);
            let ray = Ray { from, to: (vec3(0.6 * x, 0.5 * y, 0.0) - from).unit() };
            let deepest = (0..300).map(|k| ring.distance(ray.at(2.3 + k as f32 * 0.005))).fold(f32::MAX, f32::min);
            if deepest.abs() > 2e-3 {
                assert_eq!(ring.enter(&ray).is_some(), deepest < 0.0, "at {x} {y}, {deepest} from the surface");
            }
        }
    }

    #[test]
    fn a_ray_along_the_axis_enters_by_the_top() {
        let ray = Ray { from: Vec3::UP * 2.0, to: -Vec3::UP };
        let top = |shape: Shape| shape.enter(&ray).map(|entry| entry.t);
        assert_eq!(top(Shape::Cylinder { radius: 0.3, half: 0.5 }), Some(1.5));
        assert_eq!(top(Shape::Box { half: vec3(0.3, 0.5, 0.3) }), Some(1.5));
        assert_eq!(top(Shape::Capsule { radius: 0.25, half: 0.5 }), Some(1.25));
        assert_eq!(top(Shape::Cone { radius: 0.25, half: 0.5 }), Some(1.5));
        assert_eq!(top(Shape::Torus { major: 0.4, minor: 0.1 }), None, "through the hole");
    }

    #[test]
    fn what_lies_behind_is_not_entered() {
        for shape in shapes() {
            assert_eq!(shape.enter(&Ray { from: vec3(0.0, 0.0, -2.0), to: vec3(0.0, 0.0, -1.0) }), None, "{shape:?}");
        }
    }
}
