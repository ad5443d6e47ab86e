//! A weight that lies both ways round, since a product rearranges its right side unless that lies by rows: block after block the same.

use super::float::Real;
use super::product::Matrix;
use super::slices::{Values, values};
use super::weight::turned;
use candle_core::{Result, Tensor};

/// A contiguous weight `[out, in]` and its transpose.
pub(in crate::ops) struct BothWays<'a, T> {
    rows: Values<'a, T>,
    turned: Vec<T>,
    out: usize,
    n_in: usize,
}

impl<'a, T: Real> BothWays<'a, T> {
    pub(in crate::ops) fn lend(weight: &'a Tensor) -> Result<Self> {
        let ((out, n_in), rows) = (weight.dims2()?, values(weight)?);
        Ok(Self { turned: turned(&rows, n_in), rows, out, n_in })
    }
}

impl<T: Real> BothWays<'_, T> {
    pub(in crate::ops) fn len(&self) -> usize {
        self.rows.len()
    }

    /// `[out, in]`, by rows.
    pub(in crate::ops) fn matrix(&self) -> Matrix<'_, T> {
        Matrix::rows(&self.rows, self.n_in)
    }

    /// `[in, out]`, by rows.
    pub(in crate::ops) fn t(&self) -> Matrix<'_, T> {
        Matrix::rows(&self.turned, self.out)
    }
}
