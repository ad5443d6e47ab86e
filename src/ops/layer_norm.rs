//! Layer normalisation over the last dimension.

use super::cpu::simd;
use super::cpu::{Real, Values, for_rows, sum_rows, values};
use super::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use super::shapes::Shapes;
use candle_core::{D, DType, Module, Result, Tensor};

/// Layer normalisation over the last dimension.
///
/// `y = (x - mean) / sqrt(var + eps) * weight + bias`, mean and biased variance over the channels.
///
/// # Shapes
/// `x` `[.., C]`, `weight` and `bias` `[C]`, result `[.., C]`.
///
/// Half precision is normalised in f32. Candle's fast layer norm has no backward; this has.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use tadformer::ops::LayerNorm;
/// let (ones, zeros) = (Tensor::new(&[1f64, 1.0], &Device::Cpu)?, Tensor::new(&[0f64, 0.0], &Device::Cpu)?);
/// let y = LayerNorm::new(ones, zeros).forward(&Tensor::new(&[[1f64, 3.0]], &Device::Cpu)?)?.to_vec2::<f64>()?;
/// assert!((y[0][0] + 1.0).abs() < 1e-4 && (y[0][1] - 1.0).abs() < 1e-4);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[C]`.
    pub weight: Tensor,
    /// `[C]`.
    pub bias: Tensor,
    /// What is added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    /// From its scale and shift, with an eps of 1e-5.
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias, eps: Self::EPS }
    }

    /// The normalised x.
    ///
    /// # Errors
    /// A weight or bias that is not `[C]` in x's float type; an x without values.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        only(apply(Normed { x: x.clone(), norm: self.clone() })?)
    }

    pub(super) fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { weight: f(&self.weight)?, bias: f(&self.bias)?, ..*self })
    }

    /// Whether it is one of C channels, in the step of `shapes`.
    pub(super) fn check(&self, shapes: Shapes, c: usize) -> Result<()> {
        shapes.expect("a norm's weight", &self.weight, &[c])?;
        shapes.expect("a norm's bias", &self.bias, &[c])
    }

    pub(super) fn kernel<T: Real>(&self) -> Result<NormKernel<'_, T>> {
        let trains = self.weight.track_op() || self.bias.track_op();
        Ok(NormKernel { weight: values(&self.weight)?, bias: values(&self.bias)?, eps: T::of(self.eps), trains })
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }
}

#[derive(Clone)]
struct Normed {
    x: Tensor,
    norm: LayerNorm,
}

impl Step for Normed {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, norm: self.norm.map(f)? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        self.norm.check(shapes, shapes.channels("x", &self.x)?)
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let (x, LayerNorm { weight, bias, eps }) = (&self.x, &self.norm);
        let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let wide = x.to_dtype(inner)?;
        let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + *eps)?.sqrt()?;
        let normed = centred.broadcast_div(&deviation)?.to_dtype(x.dtype())?;
        Ok(vec![normed.broadcast_mul(weight)?.broadcast_add(bias)?])
    }
}

impl<T: Real> CpuKernel<T> for Normed {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (x, norm) = (values::<T>(&self.x)?, self.norm.kernel::<T>()?);
        let (x, mut y) = (&*x, vec![T::zero(); x.len()]);
        for_rows(&mut y, norm.weight.len(), |first, y| norm.forward(&x[first * norm.weight.len()..][..y.len()], y));
        Ok((vec![Output::new(y, self.x.shape())], Some(())))
    }

    /// With n the normed values and g = dy w: `dx = (g - mean(g) - n mean(g n)) / sqrt(var + eps)`, `dw = Σ dy n`, `db = Σ dy`.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let (x, dy, norm) = (values::<T>(&self.x)?, values::<T>(dy)?, self.norm.kernel::<T>()?);
        let (x, dy, c) = (&*x, &*dy, norm.weight.len());
        if self.x.track_op() {
            let mut dx = vec![T::zero(); x.len()];
            for_rows(&mut dx, c, |first, dx| {
                let rows = first * c..first * c + dx.len();
                add_input_gradient(&x[rows.clone()], &norm.weight, norm.eps, &dy[rows], dx);
            });
            grads.give_values(&self.x, dx)?;
        }
        if !norm.trains {
            return Ok(());
        }
        let mut sums = sum_rows(x.len() / c, 2 * c, |row, sums: &mut [T]| {
            let (dw, db) = sums.split_at_mut(c);
            add_weight_gradients(&x[row * c..(row + 1) * c], norm.eps, &dy[row * c..(row + 1) * c], dw, db);
        });
        let bias = sums.split_off(c);
        NormSums { weight: sums, bias }.give(&self.norm, grads)
    }
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

/// A [`LayerNorm`] as slices; its functions work on whole rows.
pub(super) struct NormKernel<'a, T: Real> {
    weight: Values<'a, T>,
    bias: Values<'a, T>,
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

    pub(super) fn give(self, norm: &LayerNorm, grads: &mut InputGradients) -> Result<()> {
        grads.give_values(&norm.weight, self.weight)?;
        grads.give_values(&norm.bias, self.bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn values_and_gradients_of_both_definitions() -> Result<()> {
        let x = Tensor::new(&[[1.0f64, 3.0]], &candle_core::Device::Cpu)?;
        let (w, b) = (Tensor::new(&[2.0f64, 2.0], x.device())?, Tensor::new(&[0.5f64, 0.5], x.device())?);
        let want = Tensor::new(&[[-1.5f64, 2.5]], x.device())?;
        for definition in Definition::ALL {
            let norm = |x: &Tensor, w: &Tensor, b: &Tensor, eps| {
                definition.run(|| LayerNorm { weight: w.clone(), bias: b.clone(), eps }.forward(x))
            };
            close(&norm(&x, &w, &b, 0.0)?, &want, 1e-12)?;
            let (x, w, b) = (normal(1, &[2, 3, 4])?, normal(2, &[4])?, normal(3, &[4])?);
            check(&[&x, &w, &b], |v| norm(&v[0], &v[1], &v[2], 1e-5))?;
            check(&[&x], |v| norm(&v[0], &w, &b, 1e-5))?;
        }
        Ok(())
    }
}
