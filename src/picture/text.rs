//! Letters on pictures: an 8 x 8 font, enlarged to what people read.

use font8x8::{BASIC_FONTS, GREEK_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{Rgb, RgbImage};

/// How large letters are: each is a square of this side in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// 8 pixels.
    Small,
    /// 16 pixels.
    Large,
}

impl Letters {
    /// The larger ones, where this text fits into so many pixels.
    pub(super) fn fitting<'a>(texts: impl IntoIterator<Item = &'a str>, width: u32) -> Self {
        if texts.into_iter().all(|text| Self::Large.width(text) <= width) { Self::Large } else { Self::Small }
    }

    pub(super) fn side(self) -> u32 {
        match self {
            Self::Small => 8,
            Self::Large => 16,
        }
    }

    pub(super) fn width(self, text: &str) -> u32 {
        self.side() * text.chars().count() as u32
    }

    /// The text, or what of it fits into so many pixels, with two dots at its end.
    pub(super) fn cut(self, text: &str, width: u32) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let kept = (width / self.side()).saturating_sub(2) as usize;
        text.chars().take(kept).chain("..".chars()).collect()
    }

    /// Writes a line in black from its upper left corner; what lies outside the picture is lost.
    pub(super) fn write(self, onto: &mut RgbImage, text: &str, (left, top): (u32, u32)) {
        let scale = self.side() / 8;
        for (i, letter) in text.chars().enumerate() {
            let shape = glyph(letter);
            for y in 0..self.side() {
                for x in (0..self.side()).filter(|x| shape[(y / scale) as usize] >> (x / scale) & 1 == 1) {
                    let at = (left + self.side() * i as u32 + x, top + y);
                    if let Some(pixel) = onto.get_pixel_mut_checked(at.0, at.1) {
                        *pixel = Rgb([0; 3]);
                    }
                }
            }
        }
    }
}

/// The rows of a letter, the lowest bit on the left; a question mark for one that the font lacks.
fn glyph(letter: char) -> [u8; 8] {
    let known = BASIC_FONTS.get(letter).or_else(|| LATIN_FONTS.get(letter)).or_else(|| GREEK_FONTS.get(letter));
    known.or_else(|| BASIC_FONTS.get('?')).unwrap_or([0; 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_it_must_be() {
        assert_eq!(Letters::fitting(["depth", "sal"], 80), Letters::Large);
        assert_eq!(Letters::fitting(["depth", "normals"], 80), Letters::Small);
        assert_eq!(Letters::Large.cut("human_parts", 96), "huma..");
    }

    #[test]
    fn letters_are_drawn_at_their_size_and_never_outside() {
        let mut picture = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        Letters::Large.write(&mut picture, "I°é", (4, 10));
        let black = |x: std::ops::Range<u32>| {
            picture.enumerate_pixels().filter(|(at, _, pixel)| x.contains(at) && pixel.0 == [0; 3]).count()
        };
        assert!(black(4..20) > 20 && black(20..36) > 4 && black(0..4) == 0);
        assert_ne!(glyph('é'), glyph('?'));
        assert_eq!(glyph('漢'), glyph('?'));
    }
}
