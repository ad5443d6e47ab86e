//! A weight as products read it: one way round forward, the other backward.

use super::float::Real;
use super::product::{Matrix, add_product};
use super::slices::{Stored, Values, matrix_values, values};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// The values of a `[out, in]` weight, by rows or by columns.
///
/// A product `x Wᵀ` reads W by columns without rearranging it, `dy W` by rows.
pub(in crate::ops) struct FrozenMatrix<'a, T> {
    values: Values<'a, T>,
    stored: Stored,
    out: usize,
    n_in: usize,
}

impl<'a, T: Real> FrozenMatrix<'a, T> {
    /// Borrowed from a weight that is stored either way round, converted where it is of another float type.
    pub(in crate::ops) fn lend(weight: &'a Tensor) -> Result<Self> {
        let ((out, n_in), (values, stored)) = (weight.dims2()?, matrix_values(weight)?);
        Ok(Self { values, stored, out, n_in })
    }
}

impl<T: Real> FrozenMatrix<'_, T> {
    pub(in crate::ops) fn len(&self) -> usize {
        self.out * self.n_in
    }

    /// `[out, in]`.
    pub(in crate::ops) fn matrix(&self) -> Matrix<'_, T> {
        match self.stored {
            Stored::Rows => Matrix::rows(&self.values, self.n_in),
            Stored::Columns => Matrix::rows(&self.values, self.out).t(),
        }
    }

    /// Brings it to columns.
    pub(in crate::ops) fn turn(&mut self) {
        if self.stored == Stored::Rows {
            (self.values, self.stored) = (Values::Owned(turned(&self.values, self.n_in)), Stored::Columns);
        }
    }

    /// Adds `s b a`, b `[out, r]` and a `[r, in]`; a borrowed weight is copied first.
    pub(in crate::ops) fn add(&mut self, b: Matrix<T>, a: Matrix<T>, s: T) {
        let mut values = match std::mem::replace(&mut self.values, Values::Owned(Vec::new())) {
            Values::Owned(values) => values,
            borrowed => borrowed.to_vec(),
        };
        match self.stored {
            Stored::Rows => add_product(&mut values, self.n_in, b, a, s),
            Stored::Columns => add_product(&mut values, self.out, a.t(), b.t(), s),
        }
        self.values = Values::Owned(values);
    }
}

/// A weight `[out, in]` that lies both ways round, since a product rearranges its right side unless that lies by rows: block after block
/// the same.
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

/// Columns that are turned together: a cache line of f32.
const STRIPE: usize = 16;

/// Rows of `width` values as columns.
fn turned<T: Real>(values: &[T], width: usize) -> Vec<T> {
    let height = values.len() / width.max(1);
    let mut turned = vec![T::zero(); values.len()];
    turned.par_chunks_mut((STRIPE * height).max(1)).enumerate().for_each(|(i, stripe)| {
        for (row, values) in values.chunks_exact(width).enumerate() {
            let values = &values[i * STRIPE..width.min((i + 1) * STRIPE)];
            stripe.iter_mut().skip(row).step_by(height).zip(values).for_each(|(turned, value)| *turned = *value);
        }
    });
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::product::product;
    use crate::ops::finite_difference::{close, normal};
    use candle_core::Device;

    /// `[out, in]` as the matrix tells it, by a product with one.
    fn read(matrix: &FrozenMatrix<f64>) -> Result<Tensor> {
        let (out, n_in) = (matrix.out, matrix.n_in);
        let mut one = vec![0.0; out * out];
        (0..out).for_each(|i| one[i * out + i] = 1.0);
        let mut values = vec![0.0; out * n_in];
        product(&mut values, n_in, Matrix::rows(&one, out), matrix.matrix(), 1.0);
        Tensor::from_vec(values, (out, n_in), &Device::Cpu)
    }

    #[test]
    fn both_ways_round_are_the_same_matrix_and_take_the_same_sum() -> Result<()> {
        for (out, n_in) in [(3, 5), (40, 17), (1, 33)] {
            let (weight, b, a) = (normal(1, &[out, n_in])?, normal(2, &[out, 2])?, normal(3, &[2, n_in])?);
            let (bs, r#as): (Vec<f64>, Vec<f64>) = (b.flatten_all()?.to_vec1()?, a.flatten_all()?.to_vec1()?);
            let want = (&weight + (b.matmul(&a)? * 0.5)?)?;
            let stored_turned = weight.t()?.contiguous()?.t()?;
            for (weight, turn) in [(&weight, false), (&weight, true), (&stored_turned, false), (&stored_turned, true)] {
                let mut matrix = FrozenMatrix::lend(weight)?;
                if turn {
                    matrix.turn();
                }
                close(&read(&matrix)?, weight, 1e-15)?;
                matrix.add(Matrix::rows(&bs, 2), Matrix::rows(&r#as, n_in), 0.5);
                close(&read(&matrix)?, &want, 1e-14)?;
            }
        }
        Ok(())
    }
}
