//! Random scenes: what stands where, in which colours and light, and what is salient.

use super::figure::{Clothes, Length, figure};
use super::scene::{Body, Camera, Light, Room, Scene, Thing, extent};
use super::shape::Shape;
use super::texture::{Pattern, Texture, hsv};
use super::vector::{Pose, Vec3, vec3};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::f32::consts::{FRAC_PI_2, PI, TAU};

/// The class of figures in [`super::CLASSES`]; those of the shapes are 1 to 5.
pub(crate) const FIGURE: u8 = 6;

/// A scene is drawn anew, up to this many times, until what is salient shows well.
const DRAFTS: usize = 16;
/// The least share of the image that the first salient thing fills, and the least for any other salient one.
const HERO_SHARE: f32 = 0.035;
const SECOND_SHARE: f32 = 0.015;
/// Rays a side of the trial image by which shares are judged.
const TRIAL_RAYS: usize = 20;

/// How strong a thing's colours are: this, and nothing else, tells what is salient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Palette {
    Vivid,
    Muted,
}

impl Palette {
    fn colour(self, rng: &mut impl Rng) -> Vec3 {
        let hue = rng.random();
        match self {
            Self::Vivid => hsv(hue, rng.random_range(0.85..1.0), rng.random_range(0.8..1.0)),
            Self::Muted => hsv(hue, rng.random_range(0.0..0.2), rng.random_range(0.35..0.9)),
        }
    }

    /// A second colour that stands off the first.
    fn partner(self, first: Vec3, rng: &mut impl Rng) -> Vec3 {
        match self {
            Self::Vivid if rng.random_bool(0.5) => self.colour(rng),
            _ => first * rng.random_range(0.2..0.6),
        }
    }

    fn texture(self, rng: &mut impl Rng) -> Texture {
        let first = self.colour(rng);
        let second = self.partner(first, rng);
        let across = vec3(rng.random_range(-0.3..0.3), 1.0, rng.random_range(-0.3..0.3)).unit();
        let pattern = match rng.random_range(0..10) {
            0..4 => Pattern::Plain,
            4..6 => Pattern::Checker(rng.random_range(0.1..0.3)),
            6..8 => Pattern::Stripes(rng.random_range(0.06..0.2), across),
            _ => Pattern::Noise(rng.random_range(0.08..0.3)),
        };
        Texture { pattern, first, second }
    }
}

/// Draws a scene for an image of `size` (height, width).
pub(crate) fn compose(rng: &mut impl Rng, size: (usize, usize)) -> Scene {
    let mut scene = draft(rng, size);
    for _ in 1..DRAFTS {
        if shows_well(&scene, size) {
            break;
        }
        scene = draft(rng, size);
    }
    scene
}

fn shows_well(scene: &Scene, size: (usize, usize)) -> bool {
    let shares = scene.shares(size, TRIAL_RAYS);
    let pairs = || scene.things.iter().zip(&shares);
    let hero = pairs().any(|(thing, share)| thing.salient && *share >= HERO_SHARE);
    hero && pairs().all(|(thing, share)| !thing.salient || *share >= SECOND_SHARE)
}

fn draft(rng: &mut impl Rng, size: (usize, usize)) -> Scene {
    let room = room(rng);
    let camera = camera(rng);
    let (lights, ambient) = lighting(rng, &room);
    let mut scene = Scene { room, things: Vec::new(), lights, ambient, camera, fog: (Vec3::ZERO, 0.0), noise: 0.0 };
    if rng.random_bool(0.25) {
        scene.fog = (Vec3::splat(rng.random_range(0.3..0.8)), rng.random_range(0.01..0.06));
    }
    if rng.random_bool(0.5) {
        scene.noise = rng.random_range(0.0..0.025);
    }
    let (count, salient) = (rng.random_range(2..=5), if rng.random_bool(0.35) { 2 } else { 1 });
    for index in 0..count {
        let palette = if index < salient { Palette::Vivid } else { Palette::Muted };
        if let Some(thing) = add(rng, &scene, size, palette, index == 0) {
            scene.things.push(thing);
        }
    }
    scene
}

fn room(rng: &mut impl Rng) -> Room {
    let half = rng.random_range(2.8..4.5);
    let low = vec3(-half, 0.0, -1.5);
    let high = vec3(half, rng.random_range(2.6..3.6), rng.random_range(5.0..8.0));
    let floor = Palette::Muted.texture(rng);
    let pattern = match floor.pattern {
        Pattern::Checker(size) => Pattern::Checker(size * 2.5),
        Pattern::Stripes(size, _) => Pattern::Stripes(size * 1.5, Pose::about_y(rng.random_range(0.0..PI)).x),
        other => other,
    };
    let walls = Palette::Muted.colour(rng);
    let pattern_of_walls = match rng.random_range(0..4) {
        0 => Pattern::Stripes(rng.random_range(0.15..0.5), vec3(0.7, 0.0, 0.7)),
        1 => Pattern::Noise(rng.random_range(0.2..0.8)),
        _ => Pattern::Plain,
    };
    let walls = Texture { pattern: pattern_of_walls, first: walls, second: walls * rng.random_range(0.5..0.8) };
    let ceiling = Texture::plain(Vec3::splat(rng.random_range(0.6..0.9)));
    Room { low, high, floor: Texture { pattern, ..floor }, walls, ceiling }
}

fn camera(rng: &mut impl Rng) -> Camera {
    let eye = vec3(rng.random_range(-0.8..0.8), rng.random_range(0.9..2.1), rng.random_range(-0.2..0.2));
    let aside = eye.x * 0.3 + rng.random_range(-0.7..0.7);
    let target = vec3(aside, rng.random_range(0.4..0.9), rng.random_range(2.8..3.6));
    Camera::look(eye, target, rng.random_range(-0.05..0.05), rng.random_range(0.85..1.4))
}

/// One or two lights under the ceiling, and the light that is everywhere; together about the same in all scenes.
fn lighting(rng: &mut impl Rng, room: &Room) -> (Vec<Light>, Vec3) {
    let tint = |rng: &mut dyn rand::RngCore| hsv(rng.random(), rng.random_range(0.0..0.1), 1.0);
    let count = rng.random_range(1..=2);
    let total = rng.random_range(0.75..1.05);
    let lights = (0..count).map(|_| Light {
        at: vec3(
            rng.random_range(room.low.x * 0.8..room.high.x * 0.8),
            room.high.y - rng.random_range(0.1..0.5),
            rng.random_range(-1.0..2.2),
        ),
        colour: tint(rng) * (total / count as f32),
    });
    (lights.collect(), Vec3::splat(rng.random_range(0.3..0.5)))
}

/// A thing of random kind, set where it shows and touches nothing; none if thirty tries find no such place.
fn add(rng: &mut impl Rng, scene: &Scene, size: (usize, usize), palette: Palette, hero: bool) -> Option<Thing> {
    let people = if hero { 0.45 } else { 0.22 };
    let class = if rng.random_bool(people) { FIGURE } else { rng.random_range(1..FIGURE) };
    let bodies = if class == FIGURE { person(rng, palette) } else { vec![solid(rng, class, palette)] };
    let (low, high) = extent(&bodies);
    let longest = (high.y - low.y).max((high.x - low.x).max(high.z - low.z) * 0.8);
    for _ in 0..30 {
        let at = spot(rng, &scene.camera, size, longest, hero);
        let thing = Thing::standing_at(class, palette == Palette::Vivid, bodies.clone(), at);
        if fits(scene, size, &thing) {
            return Some(thing);
        }
    }
    None
}

/// A place on the floor from which a thing of this size fills a random share of the image's shorter side.
fn spot(rng: &mut impl Rng, camera: &Camera, size: (usize, usize), longest: f32, hero: bool) -> Vec3 {
    let (short, long) = (size.0.min(size.1) as f32, size.0.max(size.1) as f32);
    let share = if hero { rng.random_range(0.5..0.95) } else { rng.random_range(0.28..0.7) };
    let away = (longest * camera.focal * long / (short * share)).clamp(1.7, 5.5);
    let spread = if hero { 0.6 } else { 0.9 };
    let aside = rng.random_range(-spread..spread) * 0.5 * size.1 as f32 / (long * camera.focal);
    let ahead = vec3(camera.forward.x, 0.0, camera.forward.z).unit();
    let level = vec3(camera.right.x, 0.0, camera.right.z).unit();
    let at = camera.eye + (ahead + level * aside) * away;
    vec3(at.x, 0.0, at.z)
}

/// Whether a thing stays inside the room, apart from the others, and mostly in the picture.
fn fits(scene: &Scene, size: (usize, usize), thing: &Thing) -> bool {
    let (low, high) = (scene.room.low, scene.room.high);
    let Thing { at, girth, .. } = *thing;
    let inside = at.x - girth > low.x && at.x + girth < high.x && at.z + girth < high.z;
    let apart = |other: &Thing| (at.x - other.at.x).hypot(at.z - other.at.z) > girth + other.girth + 0.04;
    let Some((x, y)) = scene.camera.project(thing.centre(), size) else { return false };
    let (u, v) = (x / size.1 as f32, y / size.0 as f32);
    let seen = (0.06..0.94).contains(&u) && (0.15..0.85).contains(&v);
    inside && seen && scene.things.iter().all(apart)
}

/// One of the five plain shapes, resting as such a solid would.
fn solid(rng: &mut impl Rng, class: u8, palette: Palette) -> Body {
    let mut between = |low: f32, high: f32| rng.random_range(low..high);
    let shape = match class {
        1 => Shape::Sphere { radius: between(0.25, 0.5) },
        2 => Shape::Box { half: vec3(between(0.2, 0.45), between(0.2, 0.5), between(0.2, 0.45)) },
        3 => Shape::Cylinder { radius: between(0.18, 0.38), half: between(0.25, 0.6) },
        4 => Shape::Cone { radius: between(0.28, 0.5), half: between(0.3, 0.55) },
        _ => Shape::Torus { major: between(0.28, 0.45), minor: between(0.09, 0.17) },
    };
    let rest = match shape {
        Shape::Sphere { .. } => Pose::about_z(between(-PI, PI)),
        Shape::Cylinder { .. } if between(0.0, 1.0) < 0.3 => Pose::about_z(FRAC_PI_2),
        // On its slanted side: the axis dips by half of the apex's angle.
        Shape::Cone { radius, half } if between(0.0, 1.0) < 0.25 => {
            Pose::about_z(FRAC_PI_2 + (radius / (2.0 * half)).atan())
        }
        Shape::Torus { .. } if between(0.0, 1.0) < 0.5 => Pose::about_z(FRAC_PI_2),
        _ => Pose::IDENTITY,
    };
    let pose = Pose::about_y(between(0.0, TAU)).then(&rest);
    let gloss = if rng.random_bool(0.5) { rng.random_range(0.1..0.5) } else { 0.0 };
    Body::new(shape, pose, palette.texture(rng), gloss, 0)
}

fn person(rng: &mut impl Rng, palette: Palette) -> Vec<Body> {
    let mut length = || *[Length::Short, Length::Long].choose(rng).unwrap_or(&Length::Long);
    let (sleeves, legs) = (length(), length());
    let cloth = |rng: &mut _| {
        let texture = palette.texture(rng);
        let pattern = match texture.pattern {
            Pattern::Checker(_) => Pattern::Checker(0.07),
            Pattern::Stripes(_, _) => Pattern::Stripes(0.05, Vec3::UP),
            other => other,
        };
        Texture { pattern, ..texture }
    };
    let (shirt, trousers) = (cloth(rng), Texture::plain(palette.colour(rng)));
    let clothes = Clothes {
        skin: hsv(rng.random_range(0.05..0.08), rng.random_range(0.25..0.45), rng.random_range(0.45..0.95)),
        hair: hsv(0.08, rng.random_range(0.1..0.5), rng.random_range(0.08..0.5)),
        shirt,
        trousers,
        shoes: hsv(rng.random(), 0.15, rng.random_range(0.1..0.4)),
        sleeves,
        legs,
    };
    // Towards the camera is -z, a half turn; every heading occurs.
    let heading = if rng.random_bool(0.7) { PI + rng.random_range(-1.0..1.0) } else { rng.random_range(0.0..TAU) };
    let height = rng.random_range(1.25..1.85);
    figure(rng, height, heading, &clothes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn scenes(count: u64, size: (usize, usize)) -> impl Iterator<Item = Scene> {
        (0..count).map(move |seed| compose(&mut StdRng::seed_from_u64(seed), size))
    }

    #[test]
    fn things_rest_on_the_floor_inside_the_room() {
        for scene in scenes(60, (96, 96)) {
            for thing in &scene.things {
                let (low, high) = extent(&thing.bodies);
                assert!(low.y.abs() < 1e-4, "class {} at height {}", thing.class, low.y);
                assert!(low.x > scene.room.low.x && high.x < scene.room.high.x && high.z < scene.room.high.z);
                assert!(high.y < scene.room.high.y);
            }
        }
    }

    #[test]
    fn things_do_not_touch() {
        for scene in scenes(60, (96, 96)) {
            for (i, thing) in scene.things.iter().enumerate() {
                for other in &scene.things[..i] {
                    let apart = thing.bodies.iter().all(|a| {
                        other.bodies.iter().all(|b| {
                            let way = (b.pose.at - a.pose.at).unit();
                            let gap = |d: Vec3| -b.reach(-d) - a.reach(d);
                            (0..16).any(|k| gap(Pose::about_y(k as f32 * TAU / 16.0).z) > 0.0) || gap(way) > 0.0
                        })
                    });
                    assert!(apart, "classes {} and {}", thing.class, other.class);
                }
            }
        }
    }

    #[test]
    fn what_is_salient_shows_in_nearly_every_scene() {
        for size in [(96, 96), (64, 160), (160, 64)] {
            let good = scenes(100, size).filter(|scene| shows_well(scene, size)).count();
            assert!(good >= 97, "{size:?}: {good}");
        }
    }

    #[test]
    fn there_are_one_or_two_salient_things_and_most_scenes_hold_others() {
        let counts: Vec<(usize, usize)> = scenes(100, (96, 96))
            .map(|scene| (scene.things.iter().filter(|thing| thing.salient).count(), scene.things.len()))
            .collect();
        assert!(counts.iter().all(|(salient, _)| (1..=2).contains(salient)));
        assert!(counts.iter().filter(|(salient, all)| all > salient).count() > 75);
    }
}
