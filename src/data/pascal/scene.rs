//! The classes of a whole scene, PASCAL-Context's own labels: edges are made of them, and they say where normals can be believed.

use crate::bitmap::Bitmap;
use crate::data::label_map::{LabelMap, wrong_value};
use crate::data::mat::Variable;
use crate::data::stored::Stored;
use crate::data::{PIXEL_LIMIT, pixel_limit::check_size};
use crate::{Error, Result};
use png::ColorType;
use std::path::Path;

/// The number of PASCAL-Context's last class; 0 is unlabelled.
const LAST_CLASS: u16 = 459;

/// The classes at which distilled normals hold: those that NYUD-v2's list of names spells alike, without `unknown`, and the television.
const WITH_NORMALS: [u16; 170] = [
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56, 59,
    61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124, 135,
    141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215,
    216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272,
    273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323, 329,
    330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383, 384, 397, 401, 403, 405,
    407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442, 443, 444, 446, 454, 457,
];

/// `LabelMap`: a class for each pixel.
pub(super) struct SceneClasses(LabelMap<u16>);

impl SceneClasses {
    /// Reads it, of whatever class and storage of numbers it is.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let variable = Variable::read(path, "LabelMap")?;
        let numbers = variable.matrix()?.numbers()?;
        let size @ (height, width) = numbers.size();
        if height * width == 0 {
            return Err(Error::file(path, "an empty `LabelMap`", "take the file as it was published"));
        }
        check_size(path, (width as u32, height as u32), PIXEL_LIMIT)?;
        let mut values = vec![0; height * width];
        let mut wrong = None;
        numbers.each(|y, x, value| {
            if !(value >= 0.0 && value <= f64::from(LAST_CLASS) && value.fract() == 0.0) {
                wrong = wrong.or(Some((y * width + x, value)));
            }
            values[y * width + x] = value as u16;
        });
        match wrong {
            Some((at, value)) => Err(wrong_value(path, &format!("a class from 0 to {LAST_CLASS}"), value, at, width)),
            None => Ok(Self(LabelMap { values, size })),
        }
    }

    /// The numbers themselves.
    pub(super) fn segments(&self) -> LabelMap<u32> {
        self.0.clone().map(u32::from)
    }

    /// Where the Laplacian of the numbers is not 0, thinned. It can cancel to 0 beside a boundary: there is no edge then, in the
    /// published labels too.
    pub(super) fn edges(&self) -> LabelMap<u8> {
        let (height, width) = self.0.size;
        let rows = |y: usize| &self.0.values[y * width..][..width];
        let mut laplacian = Vec::with_capacity(height * width);
        for y in 0..height {
            let [above, below] = beside(y, height).map(rows);
            let row = rows(y);
            for x in 0..width {
                let around = beside(x, width).map(|x| row[x]).into_iter().chain([above[x], below[x]]);
                laplacian.push(around.map(i32::from).sum::<i32>() - 4 * i32::from(row[x]));
            }
        }
        let mut edges = Bitmap::of(&laplacian, height, width, |value| value != 0);
        edges.thin();
        let mut values = vec![0; height * width];
        edges.pixels().for_each(|(y, x)| values[y * width + x] = 1);
        LabelMap { values, size: self.0.size }
    }

    /// The normals of a file in the map's size, 0 where they do not hold.
    pub(super) fn normals(&self, path: &Path) -> Result<LabelMap<f32>> {
        let stored = Stored::read(path, PIXEL_LIMIT)?;
        if (stored.colour, stored.bits) != (ColorType::Rgb, 8) {
            let problem = format!("expected 8-bit RGB, got {}", stored.form());
            return Err(Error::file(path, problem, "take the file as it was published"));
        }
        let size @ (height, width) = self.0.size;
        if (stored.height, stored.width) != size {
            let problem =
                format!("{} x {} pixels, and its `LabelMap` has {width} x {height}", stored.width, stored.height);
            return Err(Error::file(path, problem, "take both files as they were published"));
        }
        let mut holds = [false; LAST_CLASS as usize + 1];
        WITH_NORMALS.iter().for_each(|class| holds[usize::from(*class)] = true);
        let mut values = vec![0.0; 3 * height * width];
        for (at, (class, pixel)) in self.0.values.iter().zip(stored.bytes.as_chunks::<3>().0).enumerate() {
            if holds[usize::from(*class)] {
                (0..3).for_each(|c| values[c * height * width + at] = component(pixel[c]));
            }
        }
        Ok(LabelMap { values, size })
    }
}

/// What lies before and after a place on a side; beyond the rim, the pixel before the rim's.
fn beside(at: usize, side: usize) -> [usize; 2] {
    let last = side - 1;
    let before = if at == 0 { last.min(1) } else { at - 1 };
    [before, if at == last { last.saturating_sub(1) } else { at + 1 }]
}

/// A part of a normal, as 8 bits hold it.
fn component(level: u8) -> f32 {
    (2.0 * f64::from(level) / 255.0 - 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(rows: &[&[u16]]) -> Vec<u8> {
        SceneClasses(LabelMap { values: rows.concat(), size: (rows.len(), rows[0].len()) }).edges().values
    }

    #[test]
    fn edges_are_where_the_laplacian_is_not_0() {
        // 3, 4, 5 in a row: none beside the 4, since 3 - 2 * 4 + 5 = 0.
        assert_eq!(edges(&[&[3, 4, 5]]), [1, 0, 1]);
        // Beyond the rim lies what is before it, not the rim again.
        assert_eq!(edges(&[&[1], &[1], &[2]]), [0, 1, 1], "a line of two pixels stays");
        assert_eq!(edges(&[&[7]]), [0]);
        assert_eq!(edges(&[&[4; 5][..]; 4]), [0; 20]);
    }

    #[test]
    fn a_level_is_a_part_of_a_normal() {
        assert_eq!([0, 255].map(component), [-1.0, 1.0]);
        assert!((component(128) - 0.003_921_569).abs() < 1e-8);
    }
}
