//! One step of AdamW on one weight.

use crate::ops::cpu::simd::vectorised_fn;
use crate::ops::cpu::{Real, values};
use crate::ops::graph::{Definition, Runs};

use crate::ops::graph::trace::{self, Pass};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor, Var};
use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;

/// The running means of a weight's gradient and of its square.
#[derive(Debug)]
pub(crate) struct Moments {
    pub(crate) first: Var,
    pub(crate) second: Var,
}

/// The numbers of one step, bias corrections worked in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWStep {
    /// Decay of the first moment.
    pub(crate) beta1: f64,
    /// Decay of the second moment.
    pub(crate) beta2: f64,
    /// Added to the root of the corrected second moment.
    pub(crate) eps: f64,
    /// What the second moment is multiplied by to correct it: `1 / (1 - β2^t)`.
    pub(crate) unbias: f64,
    /// The learning rate with the first moment's correction: `lr / (1 - β1^t)`.
    pub(crate) rate: f64,
    /// What decay multiplies the weight by: `1 - lr λ`.
    pub(crate) shrink: f64,
}

/// `m = β1 m + (1-β1) g`, `v = β2 v + (1-β2) g²`, `w = shrink w - rate m / (sqrt(unbias v) + eps)`, all in place.
///
/// The composed definition makes some ten passes over arrays of the weight's size; the fused one reads and writes each once.
pub(crate) fn adamw_step(weight: &Var, grad: &Tensor, moments: &Moments, step: AdamWStep) -> Result<()> {
    if weight.dims() != grad.dims() {
        candle_core::bail!("a gradient of {:?} for a weight of {:?}", grad.dims(), weight.dims())
    }
    match Runs::of(weight) {
        Runs::CpuF32 if grad.dtype() == DType::F32 => fused::<f32>(weight, grad, moments, step),
        Runs::CpuF64 if grad.dtype() == DType::F64 => fused::<f64>(weight, grad, moments, step),
        _ => composed(weight, grad, moments, step),
    }
}

fn composed(weight: &Var, grad: &Tensor, moments: &Moments, step: AdamWStep) -> Result<()> {
    let (first, second) = (moments.first.as_detached_tensor(), moments.second.as_detached_tensor());
    let first = ((first * step.beta1)? + (grad * (1.0 - step.beta1))?)?;
    let second = ((second * step.beta2)? + (grad.sqr()? * (1.0 - step.beta2))?)?;
    let deviation = ((&second * step.unbias)?.sqrt()? + step.eps)?;
    let update = ((&first / deviation)? * step.rate)?;
    weight.set(&((weight.as_detached_tensor() * step.shrink)? - update)?)?;
    moments.first.set(&first)?;
    moments.second.set(&second)
}

fn fused<T: Real>(weight: &Var, grad: &Tensor, Moments { first, second }: &Moments, by: AdamWStep) -> Result<()> {
    let _op = trace::op("adamw-step", Pass::Update, Definition::Fused).moves(|| 7 * trace::bytes([grad])); // all but the gradient both ways
    let grad = values::<T>(grad)?;
    edit_var(weight, |w| edit_var(first, |m| edit_var(second, |v| step(w, m, v, &grad, by))))
}

/// Values a thread takes at a time.
const BLOCK: usize = 1 << 14;

fn step<T: Real>(w: &mut [T], m: &mut [T], v: &mut [T], g: &[T], by: AdamWStep) -> Result<()> {
    if w.len() <= BLOCK {
        block(w, m, v, g, by); // most weights are small, and waking a thread takes longer
        return Ok(());
    }
    let moments = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
    let blocks = w.par_chunks_mut(BLOCK).zip(moments).zip(g.par_chunks(BLOCK));
    blocks.for_each(|((w, (m, v)), g)| block(w, m, v, g, by));
    Ok(())
}

vectorised_fn! {
    fn block<T: Real>(w: &mut [T], m: &mut [T], v: &mut [T], g: &[T], by: AdamWStep) {
        let (beta1, beta2, eps) = (T::of(by.beta1), T::of(by.beta2), T::of(by.eps));
        let (new1, new2) = (T::of(1.0 - by.beta1), T::of(1.0 - by.beta2));
        let (unbias, rate, shrink) = (T::of(by.unbias), T::of(by.rate), T::of(by.shrink));
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
            *m = *m * beta1 + *g * new1;
            *v = *v * beta2 + *g * *g * new2;
            *w = *w * shrink - *m / ((*v * unbias).sqrt() + eps) * rate;
        }
    }
}

/// Calls `f` on the values of a contiguous storage, to be written in place.
fn edit<T: Real>(storage: &mut CpuStorage, layout: &Layout, f: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a fused kernel writes contiguous tensors in place")
    };
    T::cpu_storage_as_slice(storage)?;
    let taken = std::mem::replace(storage, T::to_cpu_storage_owned(Vec::new()));
    let mut values = T::cpu_storage_data(taken)?;
    let result = f(&mut values[start..end]);
    *storage = T::to_cpu_storage_owned(values);
    result
}

/// [`edit`] for a variable.
fn edit_var<T: Real>(var: &Var, f: impl FnOnce(&mut [T]) -> Result<()>) -> Result<()> {
    var.inplace_op1(&Edit { f: Cell::new(Some(f)), float: PhantomData })
}

/// Candle lends a storage to an op that it holds shared; what the op does with it is done once.
struct Edit<T, F> {
    f: Cell<Option<F>>,
    float: PhantomData<T>,
}

impl<T: Real, F: FnOnce(&mut [T]) -> Result<()>> InplaceOp1 for Edit<T, F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        self.f.take().map_or(Ok(()), |f| edit(storage, layout, f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{close, normal};
    use candle_core::DType;

    const STEP: AdamWStep = AdamWStep { beta1: 0.9, beta2: 0.99, eps: 1e-8, unbias: 1.5, rate: 0.1, shrink: 0.95 };

    fn weight_and_moments(dims: &[usize], dtype: DType) -> Result<(Var, Moments)> {
        let var = |seed| Var::from_tensor(&normal(seed, dims)?.to_dtype(dtype)?);
        let second = Var::from_tensor(&var(3)?.sqr()?)?;
        Ok((var(1)?, Moments { first: var(2)?, second }))
    }

    #[test]
    fn fused_and_composed_steps_agree() -> Result<()> {
        // The longer one is taken in several blocks, of which the last is short.
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            for dims in [[3, 5], [3, BLOCK - 1]] {
                let (grad, moved) = (normal(4, &dims)?.to_dtype(dtype)?, weight_and_moments(&dims, dtype)?);
                let want = weight_and_moments(&dims, dtype)?;
                for _ in 0..2 {
                    adamw_step(&moved.0, &grad, &moved.1, STEP)?;
                    composed(&want.0, &grad, &want.1, STEP)?;
                }
                close(&moved.0, &want.0, tolerance)?;
                close(&moved.1.first, &want.1.first, tolerance)?;
                close(&moved.1.second, &want.1.second, tolerance)?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_gradient_may_be_a_view_and_has_the_weights_shape() -> Result<()> {
        let (grad, dims) = (normal(4, &[5, 3])?.t()?, [3, 5]);
        let (moved, want) = (weight_and_moments(&dims, DType::F64)?, weight_and_moments(&dims, DType::F64)?);
        adamw_step(&moved.0, &grad, &moved.1, STEP)?;
        composed(&want.0, &grad, &want.1, STEP)?;
        close(&moved.0, &want.0, 1e-12)?;
        let message = adamw_step(&moved.0, &grad.t()?, &moved.1, STEP).unwrap_err().to_string();
        assert!(message.contains("[5, 3]"), "{message}");
        Ok(())
    }

    #[test]
    fn half_precision_takes_the_composed_step() -> Result<()> {
        let (weight, moments) = weight_and_moments(&[4], DType::BF16)?;
        let before = weight.as_tensor().copy()?;
        adamw_step(&weight, &before.ones_like()?, &moments, STEP)?;
        assert!(weight.ne(&before)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? > 0.0);
        Ok(())
    }
}
