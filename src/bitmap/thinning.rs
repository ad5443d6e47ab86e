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
        let mut recent = Recent::all(self.height, self.words_a_row);
        let mut taken = Vec::new();
        for half in [Half::First, Half::Second].into_iter().cycle() {
            self.find(half, &recent, &mut taken);
            recent.forget_the_last_but_one();
            for (y, i, found) in taken.drain(..) {
                self.words[y * self.words_a_row + i] &= !found;
                recent.last.insert(y, i);
            }
            if recent.is_nothing() {
                return;
            }
        }
    }

    /// What a half-step takes away, by row and word.
    fn find(&self, half: Half, recent: &Recent, taken: &mut Vec<(usize, usize, u64)>) {
        for place in 0..self.words_a_row.div_ceil(BITS) {
            let [mut above, mut here] = [0, recent.around(0, place)];
            for y in 0..self.height {
                let below = recent.around(y + 1, place);
                let mut due = above | here | below;
                [above, here] = [here, below];
                while due != 0 {
                    let i = place * BITS + due.trailing_zeros() as usize;
                    due &= due - 1;
                    let word = if i < self.words_a_row { self.words[y * self.words_a_row + i] } else { 0 };
                    let found = if word == 0 { 0 } else { word & half.removes(self.neighbours(y, i)) };
                    if found != 0 {
                        taken.push((y, i, found));
                    }
                }
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

/// Which words the last two half-steps changed, a pixel for each word. No other has to be looked at, nor one that lies beside none of them:
/// the same half has seen it as it is. So a thick shape costs what its rim does at each step, and not its area.
struct Recent {
    last: Bitmap,
    last_but_one: Bitmap,
}

impl Recent {
    /// Before the first step.
    fn all(height: usize, words_a_row: usize) -> Self {
        let all = Bitmap::of(&vec![true; height * words_a_row], height, words_a_row, |word| word);
        Self { last_but_one: all.clone(), last: all }
    }

    fn forget_the_last_but_one(&mut self) {
        std::mem::swap(&mut self.last, &mut self.last_but_one);
        self.last.words.fill(0);
    }

    fn is_nothing(&self) -> bool {
        [&self.last, &self.last_but_one].iter().all(|map| map.words.iter().all(|word| *word == 0))
    }

    /// 64 words of a row, if there is such a row: those that changed, and those beside one that did.
    fn around(&self, y: usize, place: usize) -> u64 {
        if y >= self.last.height {
            return 0;
        }
        let [a, b, c] = self.last.beside(y, place);
        let [d, e, f] = self.last_but_one.beside(y, place);
        a | b | c | d | e | f
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
            [(1, 1), (1, 90), (70, 1), (9, 64), (20, 65), (40, 130), (63, 63), (3, 64 * 64 + 70)]
                .into_iter()
                .enumerate()
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
