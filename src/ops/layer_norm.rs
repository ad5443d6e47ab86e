//! Layer normalisation over the last dimension.

use super::cpu::{Real, by_float, for_rows, is_fused, slice, sum_rows, values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, mean and biased variance over the channels.
///
/// # Shapes
/// `x` `[.., C]`, `weight` and `bias` `[C]`, result `[.., C]`.
///
/// Half precision is normalised in f32. Candle's fast layer norm has no backward; this has.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if is_fused(x) {
        x.contiguous()?.apply_op3(weight, bias, LayerNorm { eps })
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
            let c = w.len();
            let mut y = vec![T::zero(); x.len()];
            for_rows(&mut y, c, |first, rows| {
                for (y, x) in rows.chunks_exact_mut(c).zip(x[first * c..].chunks_exact(c)) {
                    let (mean, scale) = moments(x, eps);
                    for (((y, x), w), b) in y.iter_mut().zip(x).zip(w).zip(b) {
                        *y = (*x - mean) * scale * *w + *b;
                    }
                }
            });
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
    for_rows(&mut dx, c, |first, rows| {
        let inputs = xs[first * c..].chunks_exact(c).zip(dys[first * c..].chunks_exact(c));
        for (dx, (x, dy)) in rows.chunks_exact_mut(c).zip(inputs) {
            let (mean, scale) = moments(x, eps);
            let (mut sum, mut along) = (T::zero(), T::zero());
            for ((x, w), dy) in x.iter().zip(ws).zip(dy) {
                sum += *dy * *w;
                along += *dy * *w * (*x - mean) * scale;
            }
            let n = T::of(c as f64);
            let (sum, along) = (sum / n, along / n);
            for (((dx, x), w), dy) in dx.iter_mut().zip(x).zip(ws).zip(dy) {
                *dx = (*dy * *w - sum - (*x - mean) * scale * along) * scale;
            }
        }
    });
    Tensor::from_vec(dx, x.shape(), x.device())
}

fn weight_gradients<T: Real>(x: &Tensor, w: &Tensor, dy: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let (xs, dys) = (values::<T>(x)?, values::<T>(dy)?);
    let (xs, dys, c) = (&*xs, &*dys, w.elem_count());
    let sums = sum_rows(xs.len() / c, 2 * c, |row, sums: &mut [T]| {
        let (x, dy) = (&xs[row * c..(row + 1) * c], &dys[row * c..(row + 1) * c]);
        let (mean, scale) = moments(x, eps);
        let (dw, db) = sums.split_at_mut(c);
        for (((dw, db), x), dy) in dw.iter_mut().zip(db).zip(x).zip(dy) {
            *dw += *dy * (*x - mean) * scale;
            *db += *dy;
        }
    });
    let (dw, db) = sums.split_at(c);
    Ok((Tensor::from_slice(dw, c, x.device())?, Tensor::from_slice(db, c, x.device())?))
}

/// Mean, and one over the root of the variance.
fn moments<T: Real>(x: &[T], eps: f64) -> (T, T) {
    let n = T::of(x.len() as f64);
    let mean = x.iter().copied().sum::<T>() / n;
    let variance = x.iter().map(|x| (*x - mean) * (*x - mean)).sum::<T>() / n;
    (mean, (variance + T::of(eps)).sqrt().recip())
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
