//! Products of small dense matrices inside the fused kernels.
#![allow(unsafe_code)] // `gemm` takes pointers; every index is checked against its slice first

use super::cpu::Real;

/// A matrix that is read: values, rows and columns, and how far apart each lie.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) values: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major, whole.
    pub(super) fn rows(values: &'a [T], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// `rows` x `columns` of a larger row-major matrix whose rows lie `stride` apart.
    pub(super) fn part(values: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Transposed.
    pub(super) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One past the last place it reaches.
    pub(super) fn end(&self) -> usize {
        end(self.rows, self.columns, self.row_stride, self.column_stride)
    }
}

/// One past the last place that a matrix reaches.
fn end(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// What becomes of the values that are there.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Into {
    /// They are written over.
    Write,
    /// The product is added to them.
    Add,
}

/// `c = s a b` or `c += s a b`, c row-major with rows `stride` apart, on the calling thread.
#[track_caller]
pub(super) fn product<T: Real>(c: &mut [T], stride: usize, into: Into, a: Matrix<T>, b: Matrix<T>, s: T) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert!(
        b.rows == k && a.end() <= a.values.len() && b.end() <= b.values.len() && end(m, n, stride, 1) <= c.len(),
        "a product of {m} x {k} and {} x {n} does not fit its slices",
        b.rows
    );
    let one = T::one();
    // SAFETY: the assertion has checked that all three matrices lie inside their slices; `T` is f32 or f64.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            into == Into::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            one,
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
        product(&mut c, 4, Into::Add, left, right, 2.0);
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
        product(&mut [0f32; 3], 2, Into::Write, Matrix::rows(&a, 2), Matrix::rows(&a, 2), 1.0);
    }
}
