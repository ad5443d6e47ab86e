//! Maps of pixels that are set or not, 64 a word.

mod thinning;

/// Pixels `[H, W]` that are set or not; bits beyond the width are never set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bitmap {
    height: usize,
    width: usize,
    words_a_row: usize,
    words: Vec<u64>,
}

const BITS: usize = u64::BITS as usize;

impl Bitmap {
    /// No pixel set.
    pub(crate) fn empty(height: usize, width: usize) -> Self {
        let words_a_row = width.div_ceil(BITS);
        Self { height, width, words_a_row, words: vec![0; words_a_row * height] }
    }

    /// The pixels of a map, row by row, of which `is_set` holds.
    pub(crate) fn of<T: Copy>(values: &[T], height: usize, width: usize, is_set: impl Fn(T) -> bool) -> Self {
        let mut map = Self::empty(height, width);
        if width == 0 {
            return map;
        }
        for (words, row) in map.words.chunks_exact_mut(map.words_a_row).zip(values.chunks_exact(width)) {
            for (word, pixels) in words.iter_mut().zip(row.chunks(BITS)) {
                for (bit, value) in pixels.iter().enumerate() {
                    *word |= u64::from(is_set(*value)) << bit;
                }
            }
        }
        map
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn contains(&self, y: usize, x: usize) -> bool {
        self.words[y * self.words_a_row + x / BITS] >> (x % BITS) & 1 == 1
    }

    pub(crate) fn insert(&mut self, y: usize, x: usize) {
        self.words[y * self.words_a_row + x / BITS] |= 1 << (x % BITS);
    }

    pub(crate) fn remove(&mut self, y: usize, x: usize) {
        self.words[y * self.words_a_row + x / BITS] &= !(1 << (x % BITS));
    }

    /// Takes away the pixels of another map of the same size.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    /// How many pixels are set.
    pub(crate) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first pixel of row `y` that is set, from column `start` on and before `end`.
    pub(crate) fn first_in(&self, y: usize, start: usize, end: usize) -> Option<usize> {
        if start >= end {
            return None;
        }
        let row = &self.words[y * self.words_a_row..(y + 1) * self.words_a_row];
        let (mut at, mut word) = (start / BITS, row[start / BITS] & (u64::MAX << (start % BITS)));
        while word == 0 {
            at += 1;
            if at * BITS >= end {
                return None;
            }
            word = row[at];
        }
        Some(at * BITS + word.trailing_zeros() as usize).filter(|x| *x < end)
    }

    /// Whether each pixel is set, row by row.
    pub(crate) fn to_vec(&self) -> Vec<bool> {
        (0..self.height * self.width).map(|i| self.contains(i / self.width, i % self.width)).collect()
    }

    /// Row and column of each pixel that is set, row by row.
    pub(crate) fn pixels(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.height).flat_map(move |y| {
            let next = move |x: &usize| self.first_in(y, x + 1, self.width);
            std::iter::successors(self.first_in(y, 0, self.width), next).map(move |x| (y, x))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_found_across_words() {
        let (height, width) = (3, 130);
        let set = [(0, 0), (0, 63), (0, 64), (1, 129), (2, 127), (2, 128)];
        let values: Vec<bool> = (0..height * width).map(|i| set.contains(&(i / width, i % width))).collect();
        let mut map = Bitmap::of(&values, height, width, |v| v);
        assert_eq!(map.pixels().collect::<Vec<_>>(), set);
        assert_eq!((map.count(), map.first_in(0, 1, 63), map.first_in(0, 1, 64)), (6, None, Some(63)));
        assert_eq!(
            (map.first_in(2, 0, 127), map.first_in(2, 0, 130), map.first_in(1, 129, 129)),
            (None, Some(127), None)
        );
        map.remove(0, 63);
        map.insert(1, 5);
        assert!(map.contains(1, 5) && !map.contains(0, 63));
        map.subtract(&map.clone());
        assert_eq!(map, Bitmap::empty(height, width));
    }
}
