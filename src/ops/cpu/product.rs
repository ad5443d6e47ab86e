//! Products of small dense matrices inside the fused kernels.
#![allow(unsafe_code)] // `gemm` takes pointers; every index is checked against its slice first

use super::float::Real;
use super::parts::Place;
use std::mem::MaybeUninit;

/// A matrix that is read: values, rows and columns, and how far apart each lie.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Matrix<'a, T> {
    pub(in crate::ops) values: &'a [T],
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) columns: usize,
    pub(in crate::ops) row_stride: usize,
    pub(in crate::ops) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major, whole.
    pub(in crate::ops) fn rows(values: &'a [T], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// `rows` x `columns` of a larger row-major matrix whose rows lie `stride` apart.
    pub(in crate::ops) fn part(values: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Transposed.
    pub(in crate::ops) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One past the last place it reaches.
    pub(in crate::ops) fn end(&self) -> usize {
        end(self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

/// One past the last place that a matrix reaches.
fn end(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 {
        return 0;
    }
    let last = (rows - 1).saturating_mul(row_stride).saturating_add((columns - 1).saturating_mul(column_stride));
    last.saturating_add(1)
}

// SAFETY: it is one.
unsafe impl<T> Place<T> for T {
    #[inline(always)]
    fn put(&mut self, value: T) {
        *self = value;
    }
}

// SAFETY: the standard library promises it of `MaybeUninit`.
unsafe impl<T> Place<T> for MaybeUninit<T> {
    #[inline(always)]
    fn put(&mut self, value: T) {
        self.write(value);
    }
}

/// What becomes of the values that are there.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum Into {
    /// They are written over.
    Write,
    /// The product is added to them.
    Add,
}

/// `c = s a b` or `c += s a b`, as `into` says.
#[track_caller]
pub(in crate::ops) fn product_into<T: Real>(c: &mut [T], stride: usize, into: Into, a: Matrix<T>, b: Matrix<T>, s: T) {
    match into {
        Into::Write => product(c, stride, a, b, s),
        Into::Add => add_product(c, stride, a, b, s),
    }
}

/// `c = s a b`, c row-major with rows `stride` apart, on the calling thread; each of its `a.rows` x `b.columns` places is written.
#[track_caller]
pub(in crate::ops) fn product<T: Real>(c: &mut [impl Place<T>], stride: usize, a: Matrix<T>, b: Matrix<T>, s: T) {
    assert_fits(c.len(), stride, a, b);
    // SAFETY: the assertion. Nothing of c is read, and a place is laid out as a value.
    unsafe { gemm_on(c.as_mut_ptr().cast(), stride, Into::Write, a, b, s) }
}

/// [`product`] in memory that nothing was written to, c being whole rows; hands it back as values.
#[track_caller]
pub(in crate::ops) fn new_product<'c, T: Real>(
    c: &'c mut [MaybeUninit<T>],
    a: Matrix<T>,
    b: Matrix<T>,
    s: T,
) -> &'c mut [T] {
    assert!(c.len() == a.rows * b.columns, "a product of {} x {} in {} places", a.rows, b.columns, c.len());
    product(c, b.columns, a, b, s);
    // SAFETY: `product` has written `a.rows` rows of `b.columns` places, which by the assertion are all.
    unsafe { c.assume_init_mut() }
}

/// `c += s a b`, c as in [`product`].
#[track_caller]
pub(in crate::ops) fn add_product<T: Real>(c: &mut [T], stride: usize, a: Matrix<T>, b: Matrix<T>, s: T) {
    assert_fits(c.len(), stride, a, b);
    // SAFETY: the assertion.
    unsafe { gemm_on(c.as_mut_ptr(), stride, Into::Add, a, b, s) }
}

/// Whether a product's three matrices lie inside their slices, c's of `len` places.
#[track_caller]
fn assert_fits<T>(len: usize, stride: usize, a: Matrix<T>, b: Matrix<T>) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(
        b.rows == k && a.end() <= a.values.len() && b.end() <= b.values.len() && end(m, n, stride, 1) <= len,
        "a product of {m} x {k} and {} x {n} does not fit its slices",
        b.rows
    );
}

/// The product on pointers.
///
/// # Safety
/// [`assert_fits`] holds for the places from `c` on; where the product is added, these hold values.
unsafe fn gemm_on<T: Real>(c: *mut T, stride: usize, into: Into, a: Matrix<T>, b: Matrix<T>, s: T) {
    // SAFETY: the caller's promise: all three matrices lie inside their slices. `T` is f32 or f64, as `Real` has it.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            c,
            1,
            stride as isize,
            into == Into::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            s,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_transposes_and_sums_of_products() {
        let a: Vec<f64> = (0..12).map(f64::from).collect();
        let b: Vec<f64> = (0..6).map(|v| f64::from(v) - 2.0).collect();
        // The left half of a 3 x 4 matrix times the transpose of a 3 x 2 one.
        let (left, right) = (Matrix::part(&a, 3, 2, 4), Matrix::rows(&b, 2).t());
        let mut c = vec![1.0; 12];
        add_product(&mut c, 4, left, right, 2.0);
        for i in 0..3 {
            for j in 0..3 {
                let want = 1.0 + 2.0 * (0..2).map(|k| a[i * 4 + k] * b[j * 2 + k]).sum::<f64>();
                assert_eq!(c[i * 4 + j], want);
            }
            assert_eq!(c[i * 4 + 3], 1.0, "beyond the product nothing changes");
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_product_beyond_its_slice_is_refused() {
        let a = [0f32; 4];
        product(&mut [0f32; 3], 2, Matrix::rows(&a, 2), Matrix::rows(&a, 2), 1.0);
    }
}
