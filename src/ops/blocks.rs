//! Rows worked on in blocks that stay in the cache, several blocks at once.

use rayon::prelude::*;
use std::ops::Range;

/// Units of rows (windows, or single rows) cut into blocks: for sums the same ones whatever the number of threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
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

impl Blocks {
    /// `units` units of `rows` rows each.
    pub(super) fn of(units: usize, rows: usize) -> Self {
        Self::at_most(ROWS, units, rows)
    }

    /// The same with about `most` rows to a block, or one unit: for several arrays of wide rows.
    pub(super) fn at_most(most: usize, units: usize, rows: usize) -> Self {
        let all = units * rows;
        let count = |fewest| (all / LEAST_ROWS).clamp(1, fewest).max(all / most);
        let per = |fewest| units.div_ceil(count(fewest)).max(1);
        Self { units, per_block: per(fewest()), per_sum: per(FEWEST_SUMS) }
    }

    /// `maps` maps of `len` values each: as many in a block as stay in the cache together.
    pub(super) fn of_maps(maps: usize, len: usize) -> Self {
        let most = (VALUES / len.max(1)).max(1);
        let per = |fewest| maps.div_ceil(fewest).clamp(1, most);
        Self { units: maps, per_block: per(fewest()), per_sum: per(FEWEST_SUMS) }
    }

    /// Calls `f` with each block's units, in parallel; `scratch` makes what a thread reuses from block to block.
    pub(super) fn for_each<S>(
        &self,
        scratch: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, Range<usize>) + Sync + Send,
    ) {
        let blocks = self.cut(self.per_block);
        (0..blocks.len()).into_par_iter().for_each_init(scratch, |scratch, i| f(scratch, blocks.at(i)));
    }

    /// As [`Blocks::for_each`] with sums that blocks add to: partial ones, joined in order.
    pub(super) fn sum<S: Send>(
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

    #[test]
    fn every_unit_is_in_one_block() {
        for (units, rows) in [(1, 1), (100_000, 1), (256, 53), (4, 53), (0, 7), (3, 1000)] {
            let blocks = Blocks::of(units, rows);
            let seen = blocks.sum(Vec::new, |seen, block| seen.extend(block), |all, more| all.extend(more));
            assert_eq!(seen, (0..units).collect::<Vec<_>>(), "{units} units of {rows} rows");
            let blocks = Blocks::of_maps(units, rows * 1000);
            let seen = blocks.sum(Vec::new, |seen, block| seen.extend(block), |all, more| all.extend(more));
            assert_eq!(seen, (0..units).collect::<Vec<_>>(), "{units} maps of {rows} thousand values");
        }
    }
}
