//! Products so small that packing their operands would cost more than making them: attention's, inside a window and a head.
#![allow(unsafe_code)] // tiles read and write registers by pointers, after the bounds have been checked

use super::float::Real;
use super::parts::Place;
use super::product::{Matrix, product};
use pulp::{Simd, WithSimd};

/// Columns that every processor's registers divide.
pub(in crate::ops) const COLUMNS: usize = 16;

/// Rows of a tile; with four registers a row its sums fill 24 of 32.
const ROWS: usize = 6;

/// `c = s a b`: `a` any way round, `b` and `c` by rows of `columns` values, `b_stride` and `c_stride` apart; each of those of c is written.
///
/// Operands should lie in the first cache. Widths that [`COLUMNS`] does not divide take the general product.
#[track_caller]
pub(in crate::ops) fn small_product<T: Real>(
    (c, c_stride): (&mut [impl Place<T>], usize),
    a: Matrix<T>,
    (b, b_stride): (&[T], usize),
    columns: usize,
    s: T,
) {
    if !columns.is_multiple_of(COLUMNS) || a.columns == 0 {
        return product(c, c_stride, a, Matrix::part(b, a.columns, columns, b_stride), s);
    }
    if a.rows == 0 || columns == 0 {
        return;
    }
    let end = |rows: usize, stride: usize| (rows - 1) * stride + columns;
    assert!(
        a.end() <= a.values.len() && end(a.columns, b_stride) <= b.len() && end(a.rows, c_stride) <= c.len(),
        "a product of {} x {} and {} x {columns} does not fit its slices",
        a.rows,
        a.columns,
        a.columns
    );
    pulp::Arch::new().dispatch(Tiles {
        a: a.values.as_ptr(),
        a_strides: [a.row_stride, a.column_stride],
        b: b.as_ptr(),
        b_stride,
        c: c.as_mut_ptr().cast(),
        c_stride,
        sizes: [a.rows, columns, a.columns],
        s,
    });
}

#[derive(Clone, Copy)]
struct Tiles<T> {
    a: *const T,
    a_strides: [usize; 2],
    b: *const T,
    b_stride: usize,
    c: *mut T,
    c_stride: usize,
    /// Rows and columns of c, and what is summed over.
    sizes: [usize; 3],
    s: T,
}

impl<T: Real> WithSimd for Tiles<T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = T::lanes::<S>();
        let registers = self.sizes[1] / lanes;
        let mut done = 0;
        while done < registers {
            // SAFETY: `small_product`, which alone makes this, has checked that the matrices lie inside their slices; registers of columns
            // end with them, since `COLUMNS` divides their number and lanes divide `COLUMNS`.
            unsafe {
                match registers - done {
                    4.. if S::REGISTER_COUNT > 16 => {
                        self.rows::<S, 4>(simd, done * lanes);
                        done += 4;
                    }
                    2.. => {
                        self.rows::<S, 2>(simd, done * lanes);
                        done += 2;
                    }
                    _ => {
                        self.rows::<S, 1>(simd, done * lanes);
                        done += 1;
                    }
                }
            }
        }
    }
}

impl<T: Real> Tiles<T> {
    /// All rows of `W` registers of columns from `column` on; the last tile begins early enough to be whole.
    ///
    /// # Safety
    /// The columns lie inside the matrices.
    #[inline(always)]
    unsafe fn rows<S: Simd, const W: usize>(self, simd: S, column: usize) {
        let rows = self.sizes[0];
        // SAFETY: the caller's promise for the columns; no tile begins past the last row or ends after it.
        unsafe {
            if rows < ROWS {
                (0..rows).for_each(|row| self.tile::<S, 1, W>(simd, row, column));
                return;
            }
            let mut row = 0;
            while row < rows {
                self.tile::<S, ROWS, W>(simd, row.min(rows - ROWS), column);
                row += ROWS;
            }
        }
    }

    /// `R` rows of `W` registers.
    ///
    /// # Safety
    /// The tile lies inside the matrices.
    #[inline(always)]
    unsafe fn tile<S: Simd, const R: usize, const W: usize>(self, simd: S, row: usize, column: usize) {
        let (lanes, zero) = (T::lanes::<S>(), T::splat(simd, T::zero()));
        let mut sums = [[zero; W]; R];
        // SAFETY: the caller's promise: places of the tile's rows and columns, and all that is summed over, lie inside the matrices.
        unsafe {
            let (a, b) = (self.a.add(row * self.a_strides[0]), self.b.add(column));
            for k in 0..self.sizes[2] {
                let (a, b) = (a.add(k * self.a_strides[1]), b.add(k * self.b_stride));
                let mut right = [zero; W];
                for (w, right) in right.iter_mut().enumerate() {
                    *right = T::load(simd, b.add(w * lanes), lanes);
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = T::splat(simd, *a.add(r * self.a_strides[0]));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = T::multiply_add(simd, left, right, *sum);
                    }
                }
            }
            let (c, s) = (self.c.add(row * self.c_stride + column), T::splat(simd, self.s));
            for (r, sums) in sums.iter().enumerate() {
                for (w, sum) in sums.iter().enumerate() {
                    let product = T::multiply_add(simd, s, *sum, zero);
                    T::store(simd, c.add(r * self.c_stride + w * lanes), lanes, product);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_equal_the_general_product() {
        let values = |n: usize, by: f64| (0..n).map(|i| (i as f64 * by).sin()).collect::<Vec<f64>>();
        for (rows, columns, k) in [(1, 16, 3), (5, 32, 7), (6, 64, 32), (53, 80, 9), (7, 112, 1), (4, 5, 6), (0, 16, 2)]
        {
            let (a, b) = (values(rows * k + 3, 0.7), values(k * (columns + 2), 1.3));
            for a in [Matrix::part(&a, rows, k, k), Matrix::part(&a, k, rows, rows).t()] {
                let (mut got, mut want) = (vec![9.0; rows * (columns + 1)], vec![9.0; rows * (columns + 1)]);
                small_product((&mut got, columns + 1), a, (&b, columns + 2), columns, 0.5);
                product(&mut want, columns + 1, a, Matrix::part(&b, k, columns, columns + 2), 0.5);
                let far = got.iter().zip(&want).fold(0f64, |far, (a, b)| far.max((a - b).abs()));
                assert!(far < 1e-13, "{rows} x {columns} over {k}: {far:.1e}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_product_beyond_its_slice_is_refused() {
        let a = [0f32; 4];
        small_product((&mut [0f32; 31], 16), Matrix::rows(&a, 2), (&[0f32; 32], 16), 16, 1.0);
    }
}
