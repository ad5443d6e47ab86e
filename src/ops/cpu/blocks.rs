//! Rows worked on in blocks that stay in the cache, several blocks at once.

use rayon::prelude::*;
use std::ops::Range;

/// Units of rows (windows, or single rows) cut into blocks: for sums the same ones whatever the number of threads.
///
/// Every unit is in one block and no other: kernels that write their units' places of an output rely on it.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Blocks {
    units: usize,
    /// Units in a block of [`Blocks::for_each`].
    per_block: usize,
    /// Units in a block of [`Blocks::sum`].
    per_sum: usize,
}

/// Rows of a block: enough that packing a weight for a product costs little, few enough that all its values stay in the cache.
const ROWS: usize = 256;
/// Blocks a thread that even small work is cut into, so that none idles; for more of them a weight is packed too often.
const FEWEST_A_THREAD: usize = 2;
/// Blocks that even small work is cut into where sums are taken.
const FEWEST_SUMS: usize = 8;
/// Values of a block of maps: their inputs and outputs fill half of the cache.
const VALUES: usize = 1 << 17;
/// Rows below which a product is too thin to be cut further.
const LEAST_ROWS: usize = 96;
/// Partial sums that are kept side by side at most.
const PARTIAL_SUMS: usize = 32;

fn fewest() -> usize {
    FEWEST_A_THREAD * rayon::current_num_threads()
}

/// How much longer blocks of half the size take in all: weights are packed for each of them.
const COST_OF_HALVES: f64 = 1.0 / 32.0;

/// The size, at most `per` and at least half of it, with which `threads` threads end soonest: seven blocks leave one of two idle while the
/// last is made.
fn evened(units: usize, per: usize, threads: usize) -> usize {
    let whole = units as f64 / threads as f64;
    let time = |size: usize| {
        let slowest = units.div_ceil(size).div_ceil(threads) * size;
        slowest as f64 + whole * COST_OF_HALVES * 2.0 * (per - size) as f64 / per as f64
    };
    (per.div_ceil(2)..=per).rev().min_by(|a, b| time(*a).total_cmp(&time(*b))).unwrap_or(per)
}

impl Blocks {
    /// `units` units of `rows` rows each.
    pub(in crate::ops) fn of(units: usize, rows: usize) -> Self {
        Self::at_most(ROWS, units, rows)
    }

    /// The same with about `most` rows to a block, or one unit: for several arrays of wide rows.
    pub(in crate::ops) fn at_most(most: usize, units: usize, rows: usize) -> Self {
        let all = units * rows;
        let count = |fewest| (all / LEAST_ROWS).clamp(1, fewest).max(all / most);
        let per = |fewest| units.div_ceil(count(fewest)).max(1);
        Self::even(units, per(fewest()), per(FEWEST_SUMS))
    }

    /// `maps` maps of `len` values each: as many in a block as stay in the cache together.
    pub(in crate::ops) fn of_maps(maps: usize, len: usize) -> Self {
        let most = (VALUES / len.max(1)).max(1);
        let per = |fewest| maps.div_ceil(fewest).clamp(1, most);
        Self::even(maps, per(fewest()), per(FEWEST_SUMS))
    }

    /// Blocks of at most these sizes that keep all threads at work to the end.
    fn even(units: usize, per_block: usize, per_sum: usize) -> Self {
        let (per_block, per_sum) =
            (evened(units, per_block, rayon::current_num_threads()), evened(units, per_sum, FEWEST_SUMS));
        Self { units, per_block, per_sum }
    }

    /// Calls `f` with each block's units, in parallel; `scratch` makes what a thread reuses from block to block.
    pub(in crate::ops) fn for_each<S>(
        &self,
        scratch: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, Range<usize>) + Sync + Send,
    ) {
        let blocks = self.cut(self.per_block);
        (0..blocks.len()).into_par_iter().for_each_init(scratch, |scratch, i| f(scratch, blocks.at(i)));
    }

    /// As [`Blocks::for_each`] with sums that blocks add to: partial ones, joined in order.
    pub(in crate::ops) fn sum<S: Send>(
        &self,
        start: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, Range<usize>) + Sync + Send,
        join: impl Fn(&mut S, S),
    ) -> S {
        let blocks = self.cut(self.per_sum);
        let group = blocks.len().div_ceil(PARTIAL_SUMS).max(1);
        let groups = blocks.len().div_ceil(group);
        let partial: Vec<S> = (0..groups)
            .into_par_iter()
            .map(|g| {
                let mut sums = start();
                (g * group..blocks.len().min((g + 1) * group)).for_each(|i| f(&mut sums, blocks.at(i)));
                sums
            })
            .collect();
        let mut partial = partial.into_iter();
        let mut total = partial.next().unwrap_or_else(&start);
        partial.for_each(|sums| join(&mut total, sums));
        total
    }

    fn cut(&self, per_block: usize) -> Cut {
        Cut { units: self.units, per_block }
    }
}

/// Units in blocks of one size, the last as long as what is left.
struct Cut {
    units: usize,
    per_block: usize,
}

impl Cut {
    fn len(&self) -> usize {
        self.units.div_ceil(self.per_block)
    }

    fn at(&self, i: usize) -> Range<usize> {
        i * self.per_block..self.units.min((i + 1) * self.per_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn blocks_share_out_evenly() {
        assert_eq!(evened(64, 5, 2), 4); // 16 blocks, where 13 of 5 make one thread take 35 units
        assert_eq!(evened(12544, 256, 2), 251); // 50 blocks, where 49 make one take 25
        assert_eq!(evened(784, 196, 2), 196);
        for (units, per, threads) in [(0, 1, 2), (1, 1, 8), (7, 3, 2), (1000, 256, 3), (100, 64, 16)] {
            let size = evened(units, per, threads);
            assert!(size <= per && size * 2 >= per, "{units} units by {per}: {size}");
        }
    }

    #[test]
    fn every_unit_is_in_one_block() {
        for (units, rows) in [(1, 1), (100_000, 1), (256, 53), (4, 53), (0, 7), (3, 1000)] {
            let blocks = Blocks::of(units, rows);
            let counts: Vec<AtomicUsize> = (0..units).map(|_| AtomicUsize::new(0)).collect();
            blocks.for_each(
                || (),
                |(), block| {
                    block.for_each(|unit| {
                        counts[unit].fetch_add(1, Ordering::Relaxed);
                    })
                },
            );
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{units} units of {rows} rows");
            let seen = blocks.sum(Vec::new, |seen, block| seen.extend(block), |all, more| all.extend(more));
            assert_eq!(seen, (0..units).collect::<Vec<_>>(), "{units} units of {rows} rows");
            let blocks = Blocks::of_maps(units, rows * 1000);
            let seen = blocks.sum(Vec::new, |seen, block| seen.extend(block), |all, more| all.extend(more));
            assert_eq!(seen, (0..units).collect::<Vec<_>>(), "{units} maps of {rows} thousand values");
        }
    }
}
