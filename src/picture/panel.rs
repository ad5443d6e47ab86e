//! Pictures side by side under a line of titles.

use font8x8::UnicodeFonts;
use image::{Rgb, RgbImage, imageops};

/// A table of equally large pictures with a title over each column.
#[derive(Clone, Debug)]
pub struct Panel {
    titles: Vec<String>,
    rows: Vec<Vec<RgbImage>>,
}

impl Panel {
    const GAP: u32 = 4;
    const TITLE: u32 = 16;

    /// An empty panel of these columns.
    pub fn new(titles: impl IntoIterator<Item = String>) -> Self {
        Self { titles: titles.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row of pictures, one for each column.
    pub fn push(&mut self, row: Vec<RgbImage>) {
        self.rows.push(row);
    }

    /// Draws the table on white.
    pub fn draw(&self) -> RgbImage {
        let sizes = self.rows.iter().flatten().map(RgbImage::dimensions);
        let (w, h) = sizes.fold((1, 1), |(w, h), (w2, h2)| (w.max(w2), h.max(h2)));
        let (columns, rows) = (self.titles.len() as u32, self.rows.len() as u32);
        let size = (columns * (w + Self::GAP) + Self::GAP, Self::TITLE + rows * (h + Self::GAP));
        let mut panel = RgbImage::from_pixel(size.0, size.1, Rgb([255; 3]));
        for (i, title) in self.titles.iter().enumerate() {
            let left = Self::GAP + i as u32 * (w + Self::GAP);
            write(&mut panel, title, (left, 4), w);
        }
        for (j, row) in self.rows.iter().enumerate() {
            for (i, picture) in row.iter().enumerate() {
                let left = Self::GAP + i as u32 * (w + Self::GAP);
                let top = Self::TITLE + j as u32 * (h + Self::GAP);
                imageops::replace(&mut panel, picture, i64::from(left), i64::from(top));
            }
        }
        panel
    }
}

/// Writes a line of text in 8 x 8 letters, cut off after `width` pixels.
fn write(onto: &mut RgbImage, text: &str, (left, top): (u32, u32), width: u32) {
    for (i, letter) in text.chars().take((width / 8) as usize).enumerate() {
        let Some(rows) = font8x8::BASIC_FONTS.get(letter) else { continue };
        for (y, row) in rows.iter().enumerate() {
            for x in (0..8).filter(|x| row >> x & 1 == 1) {
                onto.put_pixel(left + 8 * i as u32 + x, top + y as u32, Rgb([0; 3]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_in_their_columns_under_black_letters() {
        let mut panel = Panel::new(["image".to_owned(), "label".to_owned()]);
        panel
            .push(vec![RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])), RgbImage::from_pixel(40, 20, Rgb([0, 0, 255]))]);
        let drawn = panel.draw();
        assert_eq!(drawn.dimensions(), (2 * 44 + 4, 16 + 24));
        assert_eq!(drawn.get_pixel(4, 16).0, [255, 0, 0]);
        assert_eq!(drawn.get_pixel(48, 35).0, [0, 0, 255]);
        let letters = drawn.enumerate_pixels().filter(|(_, y, pixel)| *y < 16 && pixel.0 == [0; 3]).count();
        assert!(letters > 50, "{letters}");
    }
}
