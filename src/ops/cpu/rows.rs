//! Rows handed out to threads, and sums over them.

use super::float::Real;
use rayon::prelude::*;

/// Values a thread takes at a time: large enough that handing out costs nothing, small enough for the cache.
const GRAIN: usize = 1 << 14;

/// Calls `f(first, rows)` on groups of rows of `width` values of `out`, in parallel; `first` is the first row's number.
pub(in crate::ops) fn for_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let rows = (GRAIN / width.max(1)).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
}

/// Sums over rows in a fixed order, whatever the threads: `add(row, sum)` for each of `rows` adds into `width` sums.
pub(in crate::ops) fn sum_rows<T: Real>(
    rows: usize,
    width: usize,
    add: impl Fn(usize, &mut [T]) + Sync + Send,
) -> Vec<T> {
    let group = rows.div_ceil(64).max(1); // as many groups whatever the machine: the same sums everywhere
    let partial: Vec<Vec<T>> = (0..rows.div_ceil(group))
        .into_par_iter()
        .map(|g| {
            let mut sum = vec![T::zero(); width];
            (g * group..rows.min((g + 1) * group)).for_each(|row| add(row, &mut sum));
            sum
        })
        .collect();
    let mut total = vec![T::zero(); width];
    for part in partial {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}
