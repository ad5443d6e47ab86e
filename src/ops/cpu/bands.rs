//! Products of maps with band matrices along both axes.
#![allow(unsafe_code)] // chunks of rows write their own parts of the result

use super::float::Real;
use super::parts::{Fresh, Place, unwritten, zeros};
use super::simd::vectorised_fn;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A matrix `[to, from]` whose rows are zero but for a few values side by side.
pub(in crate::ops) struct Bands<T> {
    from: usize,
    /// Values kept of each row.
    width: usize,
    /// Where each row's values begin.
    starts: Vec<usize>,
    /// `[to, width]`.
    weights: Vec<T>,
}

impl<T: Real> Bands<T> {
    /// From each row's positions, ascending and below `from`, and their weights; those of one position are added.
    pub(in crate::ops) fn of(from: usize, rows: Vec<Vec<(usize, f64)>>) -> Self {
        let reach = |row: &Vec<(usize, f64)>| match (row.first(), row.last()) {
            (Some(first), Some(last)) => last.0 + 1 - first.0,
            _ => 1,
        };
        let width = rows.iter().map(reach).max().unwrap_or(1);
        let (mut starts, mut weights) = (Vec::with_capacity(rows.len()), vec![0.0; rows.len() * width]);
        for (row, weights) in rows.iter().zip(weights.chunks_exact_mut(width)) {
            let start = match row.first() {
                Some((first, _)) => (*first).min(from - width), // a narrower band ends inside the matrix
                None => starts.last().copied().unwrap_or(0),    // starts ascend, those of empty rows as well
            };
            row.iter().for_each(|(at, weight)| weights[at - start] += weight);
            starts.push(start);
        }
        Self { from, width, starts, weights: weights.into_iter().map(T::of).collect() }
    }

    fn to(&self) -> usize {
        self.starts.len()
    }

    /// A row's values and where they begin.
    #[inline(always)]
    fn row(&self, i: usize) -> (usize, &[T]) {
        (self.starts[i], &self.weights[i * self.width..(i + 1) * self.width])
    }
}

/// Output rows a thread takes at a time.
const ROWS: usize = 64;

/// `rows · x · columnsᵀ` for each plane of `x` `[planes, h, w]`.
///
/// Columns are resized where there are fewer rows to do it to: that is the slower direction, for neighbours there have different
/// weights. Rows are sums of whole rows.
pub(in crate::ops) fn separable<T: Real>(x: &[T], rows: &Bands<T>, columns: &Bands<T>) -> Vec<T> {
    let (from, width) = (rows.from * columns.from, columns.to());
    let (planes, chunks) = (x.len() / from, rows.to().div_ceil(ROWS));
    let mut y = Fresh::of(planes * rows.to() * width);
    let out = y.parts();
    (0..planes * chunks).into_par_iter().for_each(|i| {
        let (plane, first) = (i / chunks, i % chunks * ROWS);
        let (x, taken) = (&x[plane * from..][..from], ROWS.min(rows.to() - first));
        // SAFETY: i counts chunks of planes, and each row of a plane is in one chunk.
        let y = unsafe { out.at((plane * rows.to() + first) * width, taken * width) };
        if rows.from < rows.to() {
            columns_first(y, x, first, rows, columns)
        } else {
            rows_first(y, x, first, rows, columns)
        }
    });
    // SAFETY: the chunks cover all rows, and `mix` or `across` writes each.
    unsafe { y.written() }
}

vectorised_fn! {
    /// Output rows from `first` on, by way of the input rows they need at the output's width.
    fn columns_first<T: Real>(y: &mut [MaybeUninit<T>], x: &[T], first: usize, rows: &Bands<T>, columns: &Bands<T>) {
        let width = columns.to();
        let last = first + y.len() / width - 1;
        let (start, end) = (rows.starts[first], rows.starts[last] + rows.width);
        let mut wide = vec![T::zero(); (end - start) * width];
        let inputs = x[start * columns.from..end * columns.from].chunks_exact(columns.from);
        for (wide, x) in wide.chunks_exact_mut(width).zip(inputs) {
            across(wide, x, columns);
        }
        for (i, y) in (first..).zip(y.chunks_exact_mut(width)) {
            let (at, weights) = rows.row(i);
            mix(y, &wide[(at - start) * width..], weights);
        }
    }
}

vectorised_fn! {
    /// Output rows from `first` on, each by way of its row at the input's width.
    fn rows_first<T: Real>(y: &mut [MaybeUninit<T>], x: &[T], first: usize, rows: &Bands<T>, columns: &Bands<T>) {
        let mut row = Vec::new();
        for (i, y) in (first..).zip(y.chunks_exact_mut(columns.to())) {
            let (at, weights) = rows.row(i);
            let row = mix(unwritten(&mut row, columns.from), &x[at * columns.from..], weights);
            across(y, row, columns);
        }
    }
}

/// `y = Σ_k weights_k x_k`, `x_k` the rows of `y`'s width that `x` begins with; hands y back as values.
#[inline(always)]
fn mix<'y, T: Real>(y: &'y mut [MaybeUninit<T>], x: &[T], weights: &[T]) -> &'y mut [T] {
    let n = y.len();
    if let [a, b] = weights {
        for ((y, x0), x1) in y.iter_mut().zip(&x[..n]).zip(&x[n..2 * n]) {
            y.write(*x0 * *a + *x1 * *b);
        }
        // SAFETY: the loop has written all of y: both rows of x are as long.
        return unsafe { y.assume_init_mut() };
    }
    let y = zeros(y);
    let (fours, rest) = weights.as_chunks::<4>();
    for ([a, b, c, d], x) in fours.iter().zip(x.chunks_exact(4 * n)) {
        let ((x0, x1), (x2, x3)) = (x[..2 * n].split_at(n), x[2 * n..].split_at(n));
        for ((((y, x0), x1), x2), x3) in y.iter_mut().zip(x0).zip(x1).zip(x2).zip(x3) {
            *y += (*x0 * *a + *x1 * *b) + (*x2 * *c + *x3 * *d);
        }
    }
    for (a, x) in rest.iter().zip(x[4 * fours.len() * n..].chunks_exact(n)) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x * *a;
        }
    }
    y
}

/// `y = columns · x` for one row, all of y written; the usual widths are compiled for their own.
#[inline(always)]
fn across<T: Real>(y: &mut [impl Place<T>], x: &[T], columns: &Bands<T>) {
    assert!(y.len() == columns.to(), "a row of {} places for {}", y.len(), columns.to());
    match columns.width {
        2 => across_bands::<T, 2, _>(y, x, columns), // a row made larger
        4 => across_bands::<T, 4, _>(y, x, columns), // the gradient of one made twice as large
        8 => across_bands::<T, 8, _>(y, x, columns), // and of four times
        _ => {
            for ((y, start), weights) in y.iter_mut().zip(&columns.starts).zip(columns.weights.chunks(columns.width)) {
                y.put(x[*start..].iter().zip(weights).map(|(x, weight)| *x * *weight).sum());
            }
        }
    }
}

#[inline(always)]
fn across_bands<T: Real, const WIDTH: usize, P: Place<T>>(y: &mut [P], x: &[T], columns: &Bands<T>) {
    let (weights, _) = columns.weights.as_chunks::<WIDTH>();
    for ((y, start), weights) in y.iter_mut().zip(&columns.starts).zip(weights) {
        let x = &x[*start..*start + WIDTH];
        let mut products = [T::zero(); WIDTH];
        for ((product, x), weight) in products.iter_mut().zip(x).zip(weights) {
            *product = *x * *weight;
        }
        // Added in pairs: shorter chains, and less rounding.
        let mut half = WIDTH / 2;
        while half > 0 {
            for i in 0..half {
                let upper = products[i + half];
                products[i] += upper;
            }
            half /= 2;
        }
        y.put(products[0]);
    }
}
