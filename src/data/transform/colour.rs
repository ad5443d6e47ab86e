//! Colours changed at random, as torchvision's `ColorJitter` does with floats.

use super::canvas::Image;
use super::choices::between;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// One change, and how strong it is: factors of 1 and a turn of 0 change nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

/// How far each may go.
pub(super) struct Amounts {
    pub brightness: f64,
    pub contrast: f64,
    pub saturation: f64,
    pub hue: f64,
}

impl Amounts {
    /// The changes of one image, in a random order.
    pub fn draw(&self, rng: &mut StdRng) -> [Change; 4] {
        let mut factor = |amount: f64| between([(1.0 - amount).max(0.0), 1.0 + amount], rng) as f32;
        let (brightness, contrast, saturation) =
            (factor(self.brightness), factor(self.contrast), factor(self.saturation));
        let hue = Change::Hue(between([-self.hue, self.hue], rng) as f32);
        let mut changes =
            [Change::Brightness(brightness), Change::Contrast(contrast), Change::Saturation(saturation), hue];
        changes.shuffle(rng);
        changes
    }
}

/// Applies one change; values stay within black and white.
pub(super) fn change(image: &mut Image, change: Change) {
    match change {
        Change::Brightness(factor) => each_pixel(image, |pixel| pixel.map(|v| v * factor)),
        Change::Contrast(factor) => {
            let mean = mean_grey(image);
            each_pixel(image, |pixel| blend(pixel, mean, factor));
        }
        Change::Saturation(factor) => each_pixel(image, |pixel| blend(pixel, grey(pixel), factor)),
        Change::Hue(turn) => each_pixel(image, |pixel| shifted(pixel, turn)),
    }
}

/// Changes red, green and blue from 0 to 1.
fn each_pixel(image: &mut Image, change: impl Fn([f32; 3]) -> [f32; 3]) {
    let white = image.white;
    image.values.change(|values| {
        let (red, rest) = values.split_at_mut(values.len() / 3);
        let (green, blue) = rest.split_at_mut(rest.len() / 2);
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let pixel = [*r, *g, *b].map(|v| (v / white).clamp(0.0, 1.0));
            [*r, *g, *b] = change(pixel).map(|v| v.clamp(0.0, 1.0) * white);
        }
    });
}

fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

fn mean_grey(image: &Image) -> f32 {
    let values = image.values.floats();
    let count = values.len() / 3;
    let sum = |plane: usize| values[plane * count..][..count].iter().map(|v| f64::from(*v)).sum::<f64>();
    grey([0, 1, 2].map(|plane| (sum(plane) / count as f64) as f32)) / image.white
}

fn blend(pixel: [f32; 3], with: f32, factor: f32) -> [f32; 3] {
    pixel.map(|v| factor * v + (1.0 - factor) * with)
}

/// The same saturation and value at another hue, `turn` of a whole circle further.
fn shifted([r, g, b]: [f32; 3], turn: f32) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let range = most - least;
    if range == 0.0 {
        return [r, g, b];
    }
    // In sixths of the circle, from red over yellow and green.
    let hue = if most == r {
        (g - b) / range
    } else if most == g {
        2.0 + (b - r) / range
    } else {
        4.0 + (r - g) / range
    };
    let hue = (hue + 6.0 * turn).rem_euclid(6.0);
    [5.0, 3.0, 1.0].map(|from| {
        let sixth = (from + hue).rem_euclid(6.0);
        most - range * sixth.min(4.0 - sixth).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::values::Values;
    use super::*;

    fn changed(pixels: &[[f32; 3]], by: Change) -> Vec<[f32; 3]> {
        let planes = (0..3).flat_map(|c| pixels.iter().map(move |pixel| pixel[c] * 255.0)).collect();
        let mut image = Image { values: Values::Floats(planes), white: 255.0 };
        change(&mut image, by);
        let values = image.values.floats();
        (0..pixels.len()).map(|i| [0, 1, 2].map(|c| values[c * pixels.len() + i] / 255.0)).collect()
    }

    fn close(got: &[[f32; 3]], want: &[[f32; 3]]) {
        let near = got.iter().flatten().zip(want.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near && got.len() == want.len(), "{got:?} {want:?}");
    }

    #[test]
    fn changes_by_hand() {
        let pixels = [[0.5, 0.25, 0.0], [1.0, 1.0, 1.0]];
        close(&changed(&pixels, Change::Brightness(1.5)), &[[0.75, 0.375, 0.0], [1.0; 3]]);
        let grey = 0.2989 * 0.5 + 0.587 * 0.25;
        close(&changed(&pixels[..1], Change::Saturation(0.0)), &[[grey; 3]]);
        let mean = (grey + 0.9999) / 2.0;
        close(&changed(&pixels, Change::Contrast(0.0)), &[[mean; 3]; 2]);
        let half = |v: f32| 0.5 * v + 0.5 * mean;
        close(&changed(&pixels, Change::Contrast(0.5)), &[[half(0.5), half(0.25), half(0.0)], [half(1.0); 3]]);
    }

    /// A third of the circle exchanges the channels, half of it gives the opposite colour, greys have no hue.
    #[test]
    fn hues_go_round_the_circle() {
        let pixels = [[0.5, 0.25, 0.0], [0.75, 0.0, 0.0], [0.3, 0.3, 0.3]];
        let third = [[0.0, 0.5, 0.25], [0.0, 0.75, 0.0], [0.3; 3]];
        close(&changed(&pixels, Change::Hue(1.0 / 3.0)), &third);
        close(&changed(&third, Change::Hue(-1.0 / 3.0)), &pixels);
        close(&changed(&pixels, Change::Hue(0.5)), &[[0.0, 0.25, 0.5], [0.0, 0.75, 0.75], [0.3; 3]]);
        close(&changed(&[[0.2, 0.9, 0.4], [0.1, 0.4, 0.8]], Change::Hue(0.0)), &[[0.2, 0.9, 0.4], [0.1, 0.4, 0.8]]);
    }
}
