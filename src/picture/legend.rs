//! What the colours of a picture mean.

use super::Ramp;
use super::text::Letters;
use image::{Rgb, RgbImage};

/// What the colours of a picture mean: names beside squares of colour, or a bar of numbers.
///
/// ```
/// use tadformer::picture::{Legend, Ramp};
/// let depths = Legend::bar("depth", Ramp::Viridis, (0.5, 4.0), "m");
/// assert_eq!(depths.draw(400).width(), 400);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Legend {
    title: String,
    key: Key,
}

#[derive(Clone, Debug, PartialEq)]
enum Key {
    Swatches(Vec<(String, [u8; 3])>),
    Bar { ramp: Ramp, ends: (f32, f32), unit: String },
}

impl Legend {
    const GAP: u32 = 8;

    /// Names, each beside a square of its colour.
    pub fn swatches(title: impl Into<String>, entries: impl IntoIterator<Item = (impl Into<String>, [u8; 3])>) -> Self {
        let entries = entries.into_iter().map(|(name, colour)| (name.into(), colour)).collect();
        Self { title: title.into(), key: Key::Swatches(entries) }
    }

    /// A bar of the numbers between the two that the ramp's 0 and 1 stand for, in whichever order; marks say round numbers.
    pub fn bar(title: impl Into<String>, ramp: Ramp, ends: (f32, f32), unit: impl Into<String>) -> Self {
        Self { title: title.into(), key: Key::Bar { ramp, ends, unit: unit.into() } }
    }

    /// Draws it on white, as wide as asked and as high as it needs.
    pub fn draw(&self, width: u32) -> RgbImage {
        match &self.key {
            Key::Swatches(entries) => self.draw_swatches(entries, width.max(1)),
            Key::Bar { ramp, ends, unit } => self.draw_bar(*ramp, *ends, unit, width.max(1)),
        }
    }

    fn letters(width: u32) -> Letters {
        if width < 400 { Letters::Small } else { Letters::Large }
    }

    fn draw_swatches(&self, entries: &[(String, [u8; 3])], width: u32) -> RgbImage {
        let letters = Self::letters(width);
        let side = letters.side();
        let line = side + Self::GAP;
        let mut at = (if self.title.is_empty() { 0 } else { letters.width(&self.title) + 2 * Self::GAP }, 0);
        let place = |(name, colour): &(String, [u8; 3])| {
            let name = letters.cut(name, width.saturating_sub(side + Self::GAP));
            let needed = side + Self::GAP + letters.width(&name);
            if at.0 > 0 && at.0 + needed > width {
                at = (0, at.1 + line);
            }
            let placed = (at, name, *colour);
            at.0 += needed + 2 * Self::GAP;
            placed
        };
        let placed: Vec<_> = entries.iter().map(place).collect();
        let mut drawn = RgbImage::from_pixel(width, at.1 + line, Rgb([255; 3]));
        letters.write(&mut drawn, &letters.cut(&self.title, width), (0, Self::GAP / 2));
        for ((left, top), name, colour) in placed {
            square(&mut drawn, (left, top + Self::GAP / 2), side, colour);
            letters.write(&mut drawn, &name, (left + side + Self::GAP, top + Self::GAP / 2));
        }
        drawn
    }

    fn draw_bar(&self, ramp: Ramp, (zero, one): (f32, f32), unit: &str, width: u32) -> RgbImage {
        let letters = Self::letters(width);
        let side = letters.side();
        let mut drawn = RgbImage::from_pixel(width, 2 * side + 3 * Self::GAP, Rgb([255; 3]));
        let title = if self.title.is_empty() { 0 } else { letters.width(&self.title) + 2 * Self::GAP };
        let (left, right) = (title.min(width / 2), width.saturating_sub(Self::GAP));
        letters.write(&mut drawn, &letters.cut(&self.title, left), (0, Self::GAP / 2));
        let (low, high) = (zero.min(one), zero.max(one));
        let length = right.saturating_sub(left).max(1) as f32;
        for x in left..right {
            let value = low + (high - low) * (x - left) as f32 / length;
            let colour = Rgb(ramp.colour((value - zero) / (one - zero)));
            (0..side).for_each(|y| drawn.put_pixel(x, Self::GAP / 2 + y, colour));
        }
        let mut free = 0;
        for (value, text) in marks((low, high), unit) {
            let x = left + (length * (value - low) / (high - low)) as u32;
            let start = x.saturating_sub(letters.width(&text) / 2).min(width.saturating_sub(letters.width(&text)));
            if start < free || x >= width {
                continue;
            }
            (0..Self::GAP / 2).for_each(|y| drawn.put_pixel(x, Self::GAP / 2 + side + y, Rgb([0; 3])));
            letters.write(&mut drawn, &text, (start, side + Self::GAP + Self::GAP / 2));
            free = start + letters.width(&text) + side;
        }
        drawn
    }
}

/// A square of colour with a thin grey edge, so that white is seen on white.
fn square(onto: &mut RgbImage, (left, top): (u32, u32), side: u32, colour: [u8; 3]) {
    for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
        let edge = x.min(y) == 0 || x.max(y) + 1 == side;
        if let Some(pixel) = onto.get_pixel_mut_checked(left + x, top + y) {
            *pixel = Rgb(if edge { [128; 3] } else { colour });
        }
    }
}

/// Round numbers between two, three to seven of them, as they are written.
fn marks((low, high): (f32, f32), unit: &str) -> Vec<(f32, String)> {
    let rough = (high - low) / 4.0;
    if !rough.is_finite() || rough <= 0.0 {
        return Vec::new();
    }
    let power = 10f32.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    let unit = if unit.is_empty() || unit == "°" || unit == "%" { unit.to_owned() } else { format!(" {unit}") };
    (first..=last).map(|i| i as f32 * step).map(|value| (value, format!("{value:.digits$}{unit}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers_inside_the_bar() {
        let texts = |ends, unit| marks(ends, unit).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts((0.6, 4.3), "m"), ["1 m", "2 m", "3 m", "4 m"]);
        assert_eq!(texts((0.0, 0.5), ""), ["0.0", "0.2", "0.4"]);
        assert_eq!(texts((0.0, 60.0), "°"), ["0°", "20°", "40°", "60°"]);
        assert_eq!(texts((-0.04, 0.04), ""), ["-0.04", "-0.02", "0.00", "0.02", "0.04"]);
        assert!(marks((1.0, 1.0), "m").is_empty() && marks((0.0, f32::INFINITY), "m").is_empty());
    }

    #[test]
    fn a_bar_shows_the_ramp_from_its_low_to_its_high_end() {
        let left_and_right = |ends| {
            let drawn = Legend::bar("", Ramp::Grey, ends, "m").draw(208);
            [drawn.get_pixel(0, 8).0, drawn.get_pixel(199, 8).0]
        };
        assert_eq!(left_and_right((0.0, 10.0)), [[0; 3], [254; 3]]);
        assert_eq!(left_and_right((10.0, 0.0)), [[255; 3], [1; 3]]);
    }

    #[test]
    fn swatches_go_on_in_the_next_line_and_keep_their_colours() {
        let entries = [("a long name", [255, 0, 0]), ("another name", [0, 0, 255]), ("third", [0, 255, 0])];
        let narrow = Legend::swatches("rooms", entries).draw(150);
        let wide = Legend::swatches("rooms", entries).draw(1000);
        assert!(narrow.height() > 2 * wide.height() / 2 && wide.height() == 24, "{:?}", narrow.dimensions());
        for drawn in [narrow, wide] {
            for (_, colour) in entries {
                assert!(drawn.pixels().any(|pixel| pixel.0 == colour));
            }
        }
    }
}
