//! Batch normalisation of channels-last rows.

use super::cpu::{Real, by_float, for_rows, is_fused, slice, sum_rows, values};
use super::trace::{self, Pass, Traced};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// Mean and variance of a batch, for each channel.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    /// `[C]`.
    pub mean: Tensor,
    /// `[C]`, biased: what the batch is normalised by.
    pub variance: Tensor,
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` for rows `[n, C]`, with moments that no gradient flows through.
pub fn batch_norm(x: &Tensor, by: &BatchMoments, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let scale = (weight / (&by.variance + eps)?.sqrt()?)?;
    x.broadcast_sub(&by.mean)?.broadcast_mul(&scale)?.broadcast_add(bias)
}

/// [`batch_norm`] with the batch's own moments, through which the gradient flows; gives them as well, detached.
pub fn batch_norm_train(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, BatchMoments)> {
    if !is_fused(x) {
        let moments = batch_moments(x)?;
        let y = batch_norm(x, &moments, weight, bias, eps)?;
        return Ok((y, BatchMoments { mean: moments.mean.detach(), variance: moments.variance.detach() }));
    }
    let x = x.contiguous()?;
    let moments = by_float!(x.dtype(), fused_moments(&x))?;
    let y = x.apply_op3(weight, bias, Traced(BatchNorm { moments: moments.clone(), eps }))?;
    Ok((y, moments))
}

fn batch_moments(x: &Tensor) -> Result<BatchMoments> {
    let mean = x.mean(0)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean(0)?;
    Ok(BatchMoments { mean, variance })
}

/// Two passes over the rows: the mean, then the mean square around it.
fn fused_moments<T: Real>(x: &Tensor) -> Result<BatchMoments> {
    let _op = trace::op("batch-moments", Pass::Forward).moves(|| trace::bytes([x]));
    let (rows, c) = x.dims2()?;
    let (xs, n) = (values::<T>(x)?, T::of(rows as f64));
    let xs = &*xs;
    let row = |i: usize| &xs[i * c..(i + 1) * c];
    let mut mean = sum_rows(rows, c, |i, sums: &mut [T]| sums.iter_mut().zip(row(i)).for_each(|(sum, x)| *sum += *x));
    mean.iter_mut().for_each(|mean| *mean /= n);
    let mut variance = sum_rows(rows, c, |i, sums: &mut [T]| {
        for ((sum, x), mean) in sums.iter_mut().zip(row(i)).zip(&mean) {
            *sum += (*x - *mean) * (*x - *mean);
        }
    });
    variance.iter_mut().for_each(|variance| *variance /= n);
    Ok(BatchMoments {
        mean: Tensor::from_vec(mean, c, x.device())?,
        variance: Tensor::from_vec(variance, c, x.device())?,
    })
}

struct BatchNorm {
    moments: BatchMoments,
    eps: f64,
}

/// Each channel's mean, and one over the root of its variance.
struct Columns<T> {
    mean: Vec<T>,
    scale: Vec<T>,
}

impl BatchNorm {
    fn columns<T: Real>(&self) -> Result<Columns<T>> {
        let variance = values::<T>(&self.moments.variance)?;
        let scale = variance.iter().map(|variance| (*variance + T::of(self.eps)).sqrt().recip()).collect();
        Ok(Columns { mean: values::<T>(&self.moments.mean)?.to_vec(), scale })
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        fn kernel<T: Real>(op: &BatchNorm, x: &[T], w: &[T], b: &[T]) -> Result<CpuStorage> {
            let (columns, c) = (op.columns::<T>()?, w.len());
            let mut y = vec![T::zero(); x.len()];
            for_rows(&mut y, c, |first, rows| {
                for (y, x) in rows.chunks_exact_mut(c).zip(x[first * c..].chunks_exact(c)) {
                    for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                        *y = (*x - columns.mean[i]) * columns.scale[i] * w[i] + b[i];
                    }
                }
            });
            Ok(T::to_cpu_storage_owned(y))
        }
        let y = by_float!(x.dtype(), kernel(self, slice(x, lx)?, slice(w, lw)?, slice(b, lb)?))?;
        Ok((y, lx.shape().clone()))
    }

    /// With v the normed values: `db = Σ dy`, `dw = Σ dy v`, `dx = w / sqrt(var + eps) (dy - db / n - v dw / n)`.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        fn kernel<T: Real>(op: &BatchNorm, x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
            let (rows, c) = x.dims2()?;
            let (columns, n) = (op.columns::<T>()?, T::of(rows as f64));
            let (xs, ws, dys) = (values::<T>(x)?, values::<T>(w)?, values::<T>(dy)?);
            let (xs, ws, dys) = (&*xs, &*ws, &*dys);
            let normed = |x: T, i: usize| (x - columns.mean[i]) * columns.scale[i];
            let sums = sum_rows(rows, 2 * c, |row, sums: &mut [T]| {
                let (dw, db) = sums.split_at_mut(c);
                for (i, (x, dy)) in xs[row * c..(row + 1) * c].iter().zip(&dys[row * c..]).enumerate() {
                    dw[i] += *dy * normed(*x, i);
                    db[i] += *dy;
                }
            });
            let (dw, db) = sums.split_at(c);
            let mut dx = vec![T::zero(); xs.len()];
            for_rows(&mut dx, c, |first, rows| {
                let inputs = xs[first * c..].chunks_exact(c).zip(dys[first * c..].chunks_exact(c));
                for (dx, (x, dy)) in rows.chunks_exact_mut(c).zip(inputs) {
                    for (i, ((dx, x), dy)) in dx.iter_mut().zip(x).zip(dy).enumerate() {
                        *dx = ws[i] * columns.scale[i] * (*dy - (db[i] + normed(*x, i) * dw[i]) / n);
                    }
                }
            });
            let vector = |values: &[T]| Tensor::from_slice(values, c, x.device());
            Ok([Tensor::from_vec(dx, x.shape(), x.device())?, vector(dw)?, vector(db)?])
        }
        let dy = dy.contiguous()?;
        let [dx, dw, db] = by_float!(x.dtype(), kernel(self, x, w, &dy))?;
        Ok((Some(dx), Some(dw), Some(db)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn gradients_reach_through_the_moments() -> Result<()> {
        let (x, w, b) = (normal(1, &[5, 3])?, normal(2, &[3])?, normal(3, &[3])?);
        check(&[&x, &w, &b], |v| Ok(batch_norm_train(&v[0], &v[1], &v[2], 1e-5)?.0))?;
        check(&[&x, &w, &b], |v| batch_norm(&v[0], &batch_moments(&v[0])?, &v[1], &v[2], 1e-5))
    }

    #[test]
    fn both_definitions_agree() -> Result<()> {
        let (x, w, b) = (normal(1, &[200, 3])?, normal(2, &[3])?, normal(3, &[3])?);
        let (y, moments) = batch_norm_train(&x, &w, &b, 1e-5)?;
        let want = batch_moments(&x)?;
        close(&moments.mean, &want.mean, 1e-12)?;
        close(&moments.variance, &want.variance, 1e-12)?;
        close(&y, &batch_norm(&x, &want, &w, &b, 1e-5)?, 1e-12)
    }
}
