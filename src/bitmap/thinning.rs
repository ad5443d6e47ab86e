//! Thinning: what is left of a shape is one pixel wide and connected as the shape was.

use super::{BITS, Bitmap};

/// The two halves of a step, which take pixels away from two opposite sides.
#[derive(Clone, Copy)]
enum Half {
    First,
    Second,
}

/// The eight neighbours of each of 64 pixels, x1 to x8 counter-clockwise from the east.
type Neighbours = [u64; 8];

impl Bitmap {
    /// Lam, Lee and Suen's thinning (their survey of 1992, table 1), as MATLAB's `bwmorph(_, 'thin', inf)` and scikit-image's `thin` do it:
    /// in two half-steps, each on all pixels at once, until a whole step takes nothing away.
    pub(crate) fn thin(&mut self) {
        // The half-step that last changed a row. A row is looked at again only where something around it has changed since the same half
        // looked at it.
        let mut changed = vec![1usize; self.height];
        let mut taken = vec![0u64; self.words.len()];
        let mut quiet = 0;
        for step in 2.. {
            let half = if usize::is_multiple_of(step, 2) { Half::First } else { Half::Second };
            let any = self.find(half, &mut taken, |rows| changed[rows].iter().any(|last| last + 2 >= step));
            quiet = if any { 0 } else { quiet + 1 };
            if quiet == 2 {
                return;
            }
            self.take(&mut taken, |y| changed[y] = step);
        }
    }

    /// Marks in `taken` what a half-step takes away of the rows that `is_due` says, by the rows around each; whether that is anything.
    fn find(&self, half: Half, taken: &mut [u64], is_due: impl Fn(std::ops::Range<usize>) -> bool) -> bool {
        let (n, mut any) = (self.words_a_row, 0);
        for y in 0..self.height {
            if !is_due(y.saturating_sub(1)..(y + 2).min(self.height)) {
                continue;
            }
            for i in 0..n {
                let word = self.words[y * n + i];
                let found = if word == 0 { 0 } else { word & half.removes(self.neighbours(y, i)) };
                taken[y * n + i] = found;
                any |= found;
            }
        }
        any != 0
    }

    /// Takes away what is marked, clears the marks, and tells which rows that changed.
    fn take(&mut self, taken: &mut [u64], mut changes: impl FnMut(usize)) {
        if self.words_a_row == 0 {
            return;
        }
        let rows = self.words.chunks_exact_mut(self.words_a_row).zip(taken.chunks_exact_mut(self.words_a_row));
        for (y, (words, taken)) in rows.enumerate() {
            let mut any = 0;
            for (word, taken) in words.iter_mut().zip(taken) {
                *word &= !*taken;
                any |= std::mem::take(taken);
            }
            if any != 0 {
                changes(y);
            }
        }
    }

    fn neighbours(&self, y: usize, i: usize) -> Neighbours {
        let above = if y > 0 { self.beside(y - 1, i) } else { [0; 3] };
        let below = if y + 1 < self.height { self.beside(y + 1, i) } else { [0; 3] };
        let [west, _, east] = self.beside(y, i);
        [east, above[2], above[1], above[0], west, below[0], below[1], below[2]]
    }

    /// For the pixels of a word of row `y`: those to the west of each, they themselves, those to the east.
    fn beside(&self, y: usize, i: usize) -> [u64; 3] {
        let row = &self.words[y * self.words_a_row..(y + 1) * self.words_a_row];
        let before = if i > 0 { row[i - 1] } else { 0 };
        let after = row.get(i + 1).copied().unwrap_or(0);
        [row[i] << 1 | before >> (BITS - 1), row[i], row[i] >> 1 | after << (BITS - 1)]
    }
}

impl Half {
    /// The pixels that the survey's conditions G1, G2 and G3 take away.
    fn removes(self, [x1, x2, x3, x4, x5, x6, x7, x8]: Neighbours) -> u64 {
        let crossings = [!x1 & (x2 | x3), !x3 & (x4 | x5), !x5 & (x6 | x7), !x7 & (x8 | x1)];
        let odd = [x1 | x2, x3 | x4, x5 | x6, x7 | x8];
        let even = [x2 | x3, x4 | x5, x6 | x7, x8 | x1];
        let two_or_three = two_of(odd) & two_of(even) & !(all_of(odd) & all_of(even));
        let side = match self {
            Self::First => (x2 | x3 | !x8) & x1,
            Self::Second => (x6 | x7 | !x4) & x5,
        };
        one_of(crossings) & two_or_three & !side
    }
}

/// Where exactly one of four is set.
fn one_of([a, b, c, d]: [u64; 4]) -> u64 {
    (a ^ b ^ c ^ d) & !(a & b | c & d)
}

/// Where two or more of four are set.
fn two_of([a, b, c, d]: [u64; 4]) -> u64 {
    a & b | c & d | (a | b) & (c | d)
}

fn all_of([a, b, c, d]: [u64; 4]) -> u64 {
    a & b & c & d
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    /// The conditions as the survey has them, pixel by pixel.
    fn by_the_book(map: &Bitmap) -> Bitmap {
        let mut map = map.clone();
        loop {
            let before = map.clone();
            for half in 0..2 {
                let old = map.clone();
                old.pixels().filter(|(y, x)| is_taken(&old, *y, *x, half)).for_each(|(y, x)| map.remove(y, x));
            }
            if map == before {
                return map;
            }
        }
    }

    fn is_taken(map: &Bitmap, y: usize, x: usize, half: usize) -> bool {
        let around = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)];
        let set = |(dy, dx): (isize, isize)| {
            let (y, x) = (y.checked_add_signed(dy), x.checked_add_signed(dx));
            y.zip(x).is_some_and(|(y, x)| y < map.height() && x < map.width() && map.contains(y, x))
        };
        let n = |k: usize| set(around[(k - 1) % 8]);
        let crossings = (1..=4).filter(|k| !n(2 * k - 1) && (n(2 * k) || n(2 * k + 1))).count();
        let odd = (1..=4).filter(|k| n(2 * k - 1) || n(2 * k)).count();
        let even = (1..=4).filter(|k| n(2 * k) || n(2 * k + 1)).count();
        let side = [(n(2) || n(3) || !n(8)) && n(1), (n(6) || n(7) || !n(4)) && n(5)][half];
        crossings == 1 && (2..=3).contains(&odd.min(even)) && !side
    }

    #[test]
    fn thinned_as_the_survey_has_it_and_thinned_for_good() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        for (i, (height, width)) in
            [(1, 1), (1, 90), (70, 1), (9, 64), (20, 65), (40, 130), (63, 63)].into_iter().enumerate()
        {
            for share in [0.3, 0.7, 0.9, 0.97, 1.0] {
                let values: Vec<bool> = (0..height * width).map(|_| rng.random_bool(share)).collect();
                let map = Bitmap::of(&values, height, width, |v| v);
                let mut thin = map.clone();
                thin.thin();
                assert_eq!(thin, by_the_book(&map), "{i}, {share}");
                let mut again = thin.clone();
                again.thin();
                assert_eq!(again, thin);
            }
        }
        let mut nothing = Bitmap::empty(0, 0);
        nothing.thin();
        assert_eq!(nothing.count(), 0);
    }
}
