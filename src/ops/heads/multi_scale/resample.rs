//! Resizing of hidden maps, and its transpose, channels last.

use crate::ops::cpu::Real;
use crate::ops::cpu::simd::{add_scaled, vectorised_fn};
use crate::ops::resize::{transposed, two_taps};
use candle_core::WithDType;

/// Positions along one axis and their weights.
type Taps<T> = Vec<Vec<(usize, T)>>;

/// How a map's rows and columns become those of the finest map, and the way back.
pub(super) struct Resample<T> {
    rows: Vec<[(usize, T); 2]>,
    columns: Vec<[(usize, T); 2]>,
    from_rows: Taps<T>,
    from_columns: Taps<T>,
}

impl<T: Real> Resample<T> {
    pub(super) fn new(from: (usize, usize), to: (usize, usize)) -> Self {
        let taps = |from, to| two_taps(from, to).into_iter().map(|taps| taps.map(|(at, w)| (at, T::of(w)))).collect();
        let back = |from, to| -> Taps<T> {
            transposed(from, to).into_iter().map(|t| t.into_iter().map(|(at, w)| (at, T::of(w))).collect()).collect()
        };
        Self {
            rows: taps(from.0, to.0),
            columns: taps(from.1, to.1),
            from_rows: back(from.0, to.0),
            from_columns: back(from.1, to.1),
        }
    }

    /// How much of the finest map each position's value makes up: rows' sums of weights, then columns'.
    pub(super) fn shares(&self) -> [Vec<f64>; 2] {
        [&self.from_rows, &self.from_columns].map(|axis| {
            axis.iter().map(|taps| taps.iter().map(|(_, weight)| WithDType::to_f64(*weight)).sum()).collect()
        })
    }

    /// Row `y` of the finest map's height: `[w_i, H]` from `map` `[h_i, w_i, H]`.
    pub(super) fn mix_rows(&self, y: usize, map: &[T], row: &mut [T]) {
        let [(a, wa), (b, wb)] = self.rows[y];
        let n = row.len();
        two(row, &map[a * n..(a + 1) * n], &map[b * n..(b + 1) * n], wa, wb);
    }

    /// The gradient of row `y` of a map, `[w_i, H]`, from those of all rows at the finest map's height, `[h_0, w_i, H]`.
    pub(super) fn gather_rows(&self, y: usize, map: &[T], row: &mut [T]) {
        sum_of(row, map, &self.from_rows[y]);
    }

    /// The gradient of a row at its own width, `[w_i, H]`, from that at the finest map's, `[w_0, H]`.
    pub(super) fn gather_columns(&self, from: &[T], row: &mut [T], hidden: usize) {
        for (row, taps) in row.chunks_exact_mut(hidden).zip(&self.from_columns) {
            sum_of(row, from, taps);
        }
    }
}

vectorised_fn! {
    /// `y = wa a + wb b`.
    fn two<T: Real>(y: &mut [T], a: &[T], b: &[T], wa: T, wb: T) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = *a * wa + *b * wb;
        }
    }
}

vectorised_fn! {
    /// `y = Σ w x_at`, x_at the rows of y's width that `x` consists of.
    fn sum_of<T: Real>(y: &mut [T], x: &[T], taps: &[(usize, T)]) {
        let n = y.len();
        let row = |at: usize| &x[at * n..(at + 1) * n];
        let (pairs, rest) = taps.as_chunks::<2>();
        y.fill(T::zero());
        for [(a, wa), (b, wb)] in pairs {
            for ((y, a), b) in y.iter_mut().zip(row(*a)).zip(row(*b)) {
                *y += *a * *wa + *b * *wb;
            }
        }
        for (at, weight) in rest {
            add_scaled(y, row(*at), *weight);
        }
    }
}

/// What becomes of hidden values once they are complete.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Stay,
    /// ReLU.
    Relu,
}

vectorised_fn! {
    /// Completes a row of the finest map, `[w_0, H]`: adds the bias and what each coarser map has there, at that map's width.
    pub(super) fn complete<T: Real>(z: &mut [T], bias: &[T], coarse: &[Vec<T>], by: &[&Resample<T>], then: Then) {
        let n = bias.len();
        for (x, z) in z.chunks_exact_mut(n).enumerate() {
            for (row, by) in coarse.iter().zip(by) {
                let [(a, wa), (b, wb)] = by.columns[x];
                let (a, b) = (&row[a * n..(a + 1) * n], &row[b * n..(b + 1) * n]);
                for ((z, a), b) in z.iter_mut().zip(a).zip(b) {
                    *z += *a * wa + *b * wb;
                }
            }
            if then == Then::Relu {
                for (z, bias) in z.iter_mut().zip(bias) {
                    let sum = *z + *bias;
                    *z = if sum > T::zero() { sum } else { T::zero() };
                }
            } else {
                for (z, bias) in z.iter_mut().zip(bias) {
                    *z += *bias;
                }
            }
        }
    }
}
