//! Layer normalisation over the last dimension.

use super::cpu::float::{Real, by_float};
use super::cpu::rows::{for_rows, sum_rows};
use super::cpu::simd;
use super::cpu::slices::{Loan, loan, slice, values};
use super::graph::definition::is_fused;
use super::graph::step::Gradients;
use super::graph::trace::Traced;
use super::shapes::Shapes;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, mean and biased variance over the channels.
///
/// # Shapes
/// `x` `[.., C]`, `weight` and `bias` `[C]`, result `[.., C]`.
///
/// Half precision is normalised in f32. Candle's fast layer norm has no backward; this has.
///
/// # Errors
/// A weight or bias that is not `[C]` in x's float type; an x without values.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let shapes = Shapes::of("layer-norm", x)?;
    let c = shapes.channels("x", x)?;
    shapes.expect("a weight", weight, &[c])?;
    shapes.expect("a bias", bias, &[c])?;
    if is_fused(x) {
        x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Traced(LayerNorm { eps }))
    } else {
        composed(x, weight, bias, eps)
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let wide = x.to_dtype(inner)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    centred.broadcast_div(&deviation)?.to_dtype(x.dtype())?.broadcast_mul(weight)?.broadcast_add(bias)
}

struct LayerNorm {
    eps: f64,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
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
        fn kernel<T: Real>(x: &[T], w: &[T], b: &[T], eps: f64) -> Result<CpuStorage> {
            let (c, mut y) = (w.len(), vec![T::zero(); x.len()]);
            for_rows(&mut y, c, |first, y| normalise(&x[first * c..][..y.len()], w, b, T::of(eps), y));
            Ok(T::to_cpu_storage_owned(y))
        }
        let y = by_float!(x.dtype(), kernel(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?, self.eps))?;
        Ok((y, lx.shape().clone()))
    }

    /// With n the normed values and g = dy w: `dx = (g - mean(g) - n mean(g n)) / sqrt(var + eps)`, `dw = Σ dy n`, `db = Σ dy`.
    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let dx = if x.track_op() { Some(by_float!(x.dtype(), input_gradient(x, w, &dy, self.eps))?) } else { None };
        if !w.track_op() && !b.track_op() {
            return Ok((dx, None, None));
        }
        let (dw, db) = by_float!(x.dtype(), weight_gradients(x, w, &dy, self.eps))?;
        Ok((dx, Some(dw), Some(db)))
    }
}

fn input_gradient<T: Real>(x: &Tensor, w: &Tensor, dy: &Tensor, eps: f64) -> Result<Tensor> {
    let (xs, ws, dys) = (values::<T>(x)?, values::<T>(w)?, values::<T>(dy)?);
    let (xs, ws, dys) = (&*xs, &*ws, &*dys);
    let c = ws.len();
    let mut dx = vec![T::zero(); xs.len()];
    for_rows(&mut dx, c, |first, dx| {
        let (x, dy) = (&xs[first * c..][..dx.len()], &dys[first * c..][..dx.len()]);
        add_input_gradient(x, ws, T::of(eps), dy, dx);
    });
    Tensor::from_vec(dx, x.shape(), x.device())
}

fn weight_gradients<T: Real>(x: &Tensor, w: &Tensor, dy: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (xs, dys) = (values::<T>(x)?, values::<T>(dy)?);
    let (xs, dys, c) = (&*xs, &*dys, w.elem_count());
    let sums = sum_rows(xs.len() / c, 2 * c, |row, sums: &mut [T]| {
        let (dw, db) = sums.split_at_mut(c);
        add_weight_gradients(&xs[row * c..(row + 1) * c], T::of(eps), &dys[row * c..(row + 1) * c], dw, db);
    });
    let (dw, db) = sums.split_at(c);
    Ok((Tensor::from_slice(dw, c, x.device())?, Tensor::from_slice(db, c, x.device())?))
}

simd::vectorised_fn! {
    /// Rows of x to rows of y.
    fn normalise<T: Real>(x: &[T], w: &[T], b: &[T], eps: T, y: &mut [T]) {
        for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let (mean, scale) = moments(x, eps);
            for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                *y = (*x - mean) * scale * *w + *b;
            }
        }
    }
}

simd::vectorised_fn! {
    /// `dx += ` the gradient of rows.
    fn add_input_gradient<T: Real>(x: &[T], w: &[T], eps: T, dy: &[T], dx: &mut [T]) {
        let c = w.len();
        let n = T::of(c as f64);
        for ((dx, x), dy) in dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c)) {
            let (mean, scale) = moments(x, eps);
            let sum = simd::dot(dy, w) / n;
            let mut along = T::zero();
            for ((x, w), dy) in x.chunks(LANES).zip(w.chunks(LANES)).zip(dy.chunks(LANES)) {
                let mut part = [T::zero(); LANES];
                for (((part, x), w), dy) in part.iter_mut().zip(x).zip(w).zip(dy) {
                    *part = *dy * *w * (*x - mean);
                }
                along += simd::sum(&part);
            }
            along = along * scale * scale / n;
            for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(w).zip(dy) {
                *dx += (*dy * *w - sum - (*x - mean) * along) * scale;
            }
        }
    }
}

/// Values of a row that are summed at a time.
const LANES: usize = 16;

simd::vectorised_fn! {
    /// `dw += dy n`, `db += dy` over rows.
    fn add_weight_gradients<T: Real>(x: &[T], eps: T, dy: &[T], dw: &mut [T], db: &mut [T]) {
        let c = dw.len();
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            let (mean, scale) = moments(x, eps);
            for (((dw, db), x), dy) in dw.iter_mut().zip(db.iter_mut()).zip(x).zip(dy) {
                *dw += *dy * (*x - mean) * scale;
                *db += *dy;
            }
        }
    }
}

/// Mean, and one over the root of the variance.
#[inline(always)]
fn moments<T: Real>(x: &[T], eps: T) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = simd::sum(x) / n;
    let variance = simd::sum_pairs(x, x, |x, _| (x - mean) * (x - mean)) / n;
    (mean, (variance + eps).sqrt().recip())
}

/// A layer norm's weights.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[C]`.
    pub weight: Tensor,
    /// `[C]`.
    pub bias: Tensor,
    /// What is added to the variance.
    pub eps: f64,
}

impl Norm {
    /// [`layer_norm`] with these weights.
    ///
    /// # Errors
    /// As [`layer_norm`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }

    pub(super) fn tensors(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    pub(super) fn contiguous(&self) -> Result<Self> {
        Ok(Self { weight: self.weight.contiguous()?, bias: self.bias.contiguous()?, eps: self.eps })
    }

    pub(super) fn kernel<T: Real>(&self) -> Result<NormKernel<'_, T>> {
        let trains = self.weight.track_op() || self.bias.track_op();
        Ok(NormKernel { weight: loan(&self.weight)?, bias: loan(&self.bias)?, eps: T::of(self.eps), trains })
    }
}

/// A [`Norm`] as slices; its functions work on whole rows.
pub(super) struct NormKernel<'a, T: Real> {
    weight: Loan<'a, T>,
    bias: Loan<'a, T>,
    eps: T,
    trains: bool,
}

/// Sums of the gradients of a norm's weights.
pub(super) struct NormSums<T> {
    weight: Vec<T>,
    bias: Vec<T>,
}

impl<T: Real> NormKernel<'_, T> {
    pub(super) fn forward(&self, x: &[T], y: &mut [T]) {
        normalise(x, &self.weight, &self.bias, self.eps, y);
    }

    pub(super) fn sums(&self) -> NormSums<T> {
        NormSums { weight: vec![T::zero(); self.weight.len()], bias: vec![T::zero(); self.bias.len()] }
    }

    /// `dx +=` the rows' gradient, and the sums of the weights' where they train.
    pub(super) fn backward(&self, x: &[T], dy: &[T], dx: &mut [T], sums: &mut NormSums<T>) {
        add_input_gradient(x, &self.weight, self.eps, dy, dx);
        if self.trains {
            add_weight_gradients(x, self.eps, dy, &mut sums.weight, &mut sums.bias);
        }
    }
}

impl<T: Real> NormSums<T> {
    pub(super) fn add(&mut self, other: &Self) {
        simd::add(&mut self.weight, &other.weight);
        simd::add(&mut self.bias, &other.bias);
    }

    pub(super) fn give(self, norm: &Norm, grads: &mut Gradients) -> Result<()> {
        grads.give_values(&norm.weight, self.weight)?;
        grads.give_values(&norm.bias, self.bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients_of_both_definitions() -> Result<()> {
        let x = Tensor::new(&[[1.0f64, 3.0]], &candle_core::Device::Cpu)?;
        let (w, b) = (Tensor::new(&[2.0f64, 2.0], x.device())?, Tensor::new(&[0.5f64, 0.5], x.device())?);
        let want = Tensor::new(&[[-1.5f64, 2.5]], x.device())?;
        for norm in [layer_norm, composed] {
            close(&norm(&x, &w, &b, 0.0)?, &want, 1e-12)?;
            let (x, w, b) = (normal(1, &[2, 3, 4])?, normal(2, &[4])?, normal(3, &[4])?);
            check(&[&x, &w, &b], |v| norm(&v[0], &v[1], &v[2], 1e-5))?;
            check(&[&x], |v| norm(&v[0], &w, &b, 1e-5))?;
        }
        Ok(())
    }
}
