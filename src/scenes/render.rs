//! From a scene to an image: light, shadow, haze, and smooth outlines where colours change abruptly.

use super::labels::Hits;
use super::scene::{Hit, Scene};
use super::shape::Ray;
use super::texture::hash;
use super::vector::{Vec3, vec3};
use crate::Result;
use candle_core::{Device, Tensor};

/// Shadow rays start this far off the surface, in metres.
const LIFT: f32 = 2e-3;
/// Pixels whose neighbours' colours differ by more than this are looked at with more rays.
const CONTRAST: f32 = 0.12;
/// Where those rays pass through a pixel, beside the one through its centre.
const ASIDE: [(f32, f32); 2] = [(0.2, 0.7), (0.8, 0.3)];

/// The first surface behind the centre of each pixel.
pub(crate) fn hits(scene: &Scene, size: (usize, usize)) -> Hits<'_> {
    let centre = |i: usize| scene.camera.ray((i % size.1) as f32 + 0.5, (i / size.1) as f32 + 0.5, size);
    let hits = (0..size.0 * size.1).map(|i| scene.trace(&centre(i))).collect();
    Hits { scene, size, hits }
}

/// The image `[3, H, W]` from 0 to 1; `grain` seeds the camera's noise.
pub(crate) fn image(map: &Hits, grain: i32) -> Result<Tensor> {
    let (height, width) = map.size;
    let rough: Vec<Vec3> = map.hits.iter().map(|hit| display(shade(map.scene, hit))).collect();
    let mut pixels: Vec<Vec3> = (0..rough.len())
        .map(|i| if is_contrasty(&rough, i, map.size) { smooth(map.scene, rough[i], i, map.size) } else { rough[i] })
        .collect();
    if map.scene.noise > 0.0 {
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let noisy = |value: f32, channel: i32| value + map.scene.noise * bell(i as i32, channel, grain);
            *pixel = vec3(noisy(pixel.x, 0), noisy(pixel.y, 1), noisy(pixel.z, 2));
        }
    }
    let mut planes = vec![0.0; 3 * rough.len()];
    for (i, pixel) in pixels.iter().enumerate() {
        for (channel, value) in pixel.array().into_iter().enumerate() {
            planes[channel * rough.len() + i] = value.clamp(0.0, 1.0);
        }
    }
    Ok(Tensor::from_vec(planes, (3, height, width), &Device::Cpu)?)
}

fn is_contrasty(colours: &[Vec3], i: usize, (height, width): (usize, usize)) -> bool {
    let (row, column) = (i / width, i % width);
    let differs = |j: usize| {
        let gap = (colours[i] - colours[j]).abs();
        gap.x.max(gap.y).max(gap.z) > CONTRAST
    };
    (row > 0 && differs(i - width))
        || (row + 1 < height && differs(i + width))
        || (column > 0 && differs(i - 1))
        || (column + 1 < width && differs(i + 1))
}

/// The mean colour of three rays through a pixel, of which the central one's is known.
fn smooth(scene: &Scene, centre: Vec3, i: usize, size: (usize, usize)) -> Vec3 {
    let (row, column) = ((i / size.1) as f32, (i % size.1) as f32);
    let colour = |(x, y): (f32, f32)| {
        let ray: Ray = scene.camera.ray(column + x, row + y, size);
        display(shade(scene, &scene.trace(&ray)))
    };
    ASIDE.into_iter().map(colour).fold(centre, |sum, colour| sum + colour) * (1.0 / 3.0)
}

/// Light that a surface sends to the camera: Lambert's law, shadows, a highlight, haze.
fn shade(scene: &Scene, hit: &Hit) -> Vec3 {
    let view = scene.camera.eye - hit.point;
    let (away, view) = (view.length(), view.unit());
    let mut light = scene.ambient * (0.75 + 0.25 * hit.normal.y);
    let mut shine = Vec3::ZERO;
    let from = hit.point + hit.normal * LIFT;
    for lamp in &scene.lights {
        let way = (lamp.at - hit.point).unit();
        let slant = hit.normal.dot(way);
        if slant <= 0.0 || scene.shadowed(from, lamp) {
            continue;
        }
        light = light + lamp.colour * slant;
        if hit.gloss > 0.0 {
            let facing = hit.normal.dot((way + view).unit()).max(0.0);
            shine = shine + lamp.colour * (hit.gloss * facing.powi(40));
        }
    }
    let (haze, thickness) = scene.fog;
    (hit.colour.times(light) + shine).mix(haze, 1.0 - (-thickness * away).exp())
}

/// Linear light as a screen shows it: about, for the curve of real screens is a little steeper than a square root.
fn display(light: Vec3) -> Vec3 {
    let gamma = |value: f32| value.clamp(0.0, 1.0).sqrt();
    vec3(gamma(light.x), gamma(light.y), gamma(light.z))
}

/// Noise of about the standard normal distribution: the sum of four even ones, each of variance 1/12.
fn bell(pixel: i32, channel: i32, grain: i32) -> f32 {
    let even = |k: i32| hash(pixel, 4 * channel + k, grain);
    (even(0) + even(1) + even(2) + even(3) - 2.0) * 3f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::scene::tests::one_ball;

    #[test]
    fn light_adds_up_by_lamberts_law() {
        let mut scene = one_ball();
        scene.things.clear();
        let below = scene.trace(&Ray { from: vec3(0.0, 1.0, 0.0), to: vec3(0.0, -1.0, 0.0) });
        // Grey 0.5, lit from straight above by 0.7 and everywhere by 0.3.
        assert!((shade(&scene, &below).x - 0.5).abs() < 1e-5);
        let aside = scene.trace(&Ray { from: vec3(2.9, 1.0, 0.0), to: vec3(0.0, -1.0, 0.0) });
        let expected = 0.5 * (0.3 + 0.7 * 0.5f32.sqrt());
        assert!((shade(&scene, &aside).x - expected).abs() < 1e-5, "45 degrees");
    }

    #[test]
    fn a_shadow_leaves_only_the_light_that_is_everywhere() {
        let scene = one_ball();
        let under = scene.trace(&Ray { from: vec3(0.0, 0.2, 3.45), to: vec3(0.0, -1.0, 0.0) });
        assert!((shade(&scene, &under).x - 0.5 * 0.3).abs() < 1e-5);
    }

    #[test]
    fn outlines_are_smooth_and_surfaces_untouched() {
        let scene = one_ball();
        let map = hits(&scene, (65, 65));
        let pixels: Vec<f32> = image(&map, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let middle = 32 * 65 + 32;
        assert!((pixels[middle] - display(shade(&scene, &map.hits[middle])).x).abs() < 1e-6);
        let rough: Vec<f32> = map.hits.iter().map(|hit| display(shade(&scene, hit)).x).collect();
        let changed = (0..rough.len()).filter(|i| (rough[*i] - pixels[*i]).abs() > 1e-3).count();
        assert!((20..900).contains(&changed), "{changed}");
    }

    #[test]
    fn noise_has_mean_zero_and_deviation_one() {
        let values: Vec<f32> = (0..20_000).map(|i| bell(i, i % 3, 7)).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
