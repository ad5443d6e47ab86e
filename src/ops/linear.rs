//! The linear map, which makes the gradient of its weight only where that weight trains.

use super::cpu::rows::for_rows;
use super::graph::definition::is_fused;
use super::graph::trace::Traced;
use super::shapes::Shapes;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

/// `y = x Wᵀ + b`.
///
/// # Shapes
/// `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`, result `[.., out]` in x's float type, whatever the weight's.
///
/// Where neither weight nor bias leads to a variable, the step is one op, on the CPU in f32 or f64, whose backward is
/// `dx = dy W` alone: candle's own product would make `dW` too and keep it.
///
/// # Errors
/// A last dimension of x other than `in`; a bias of another length or float type than x; a weight that is no matrix of floats.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let shapes = Shapes::of("linear", x)?;
    let n_in = shapes.channels("x", x)?;
    let out = shapes.matrix("a weight", weight, n_in)?;
    if let Some(bias) = bias {
        shapes.expect("a bias", bias, &[out])?;
    }
    let weight = &weight.to_dtype(x.dtype())?; // no copy unless a frozen one is stored in another type
    let mut dims = x.dims().to_vec();
    let rows = x.contiguous()?.reshape(((), n_in))?;
    let frozen = !weight.track_op() && bias.is_none_or(|b| !b.track_op());
    let y = if frozen && is_fused(x) {
        rows.apply_op2(weight, Traced(FrozenLinear { bias: bias.cloned() }))?
    } else {
        composed(&rows, weight, bias)?
    };
    dims.pop();
    dims.push(out);
    y.reshape(dims)
}

fn composed(rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = rows.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

struct FrozenLinear {
    bias: Option<Tensor>,
}

impl CustomOp2 for FrozenLinear {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, n_in), (out, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let mut y = x.matmul(w, (1, rows, out, n_in), lx, &lw.transpose(0, 1)?)?;
        if let Some(bias) = &self.bias {
            match &mut y {
                CpuStorage::F32(y) => add_to_rows(y, bias)?,
                CpuStorage::F64(y) => add_to_rows(y, bias)?,
                _ => candle_core::bail!("frozen-linear: no product of {:?} on the CPU", y.dtype()),
            }
        }
        Ok((y, (rows, out).into()))
    }

    fn bwd(&self, _x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(dy.contiguous()?.matmul(w)?), None))
    }
}

fn add_to_rows<T: WithDType + Send + Sync>(y: &mut [T], bias: &Tensor) -> Result<()> {
    let bias: Vec<T> = bias.to_vec1()?;
    for_rows(y, bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(&bias).for_each(|(y, b)| *y += *b);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{check, close, normal};

    #[test]
    fn gradients_agree_with_finite_differences_whether_frozen_or_not() -> Result<()> {
        let (x, w, b) = (normal(1, &[2, 5, 3])?, normal(2, &[4, 3])?, normal(3, &[4])?);
        check(&[&x], |v| linear(&v[0], &w, Some(&b)))?;
        check(&[&x], |v| linear(&v[0], &w, None))?;
        check(&[&x, &w, &b], |v| linear(&v[0], &v[1], Some(&v[2])))
    }

    #[test]
    fn the_fused_step_equals_the_composed_one() -> Result<()> {
        let (x, w, b) = (normal(1, &[6, 3])?, normal(2, &[4, 3])?, normal(3, &[4])?);
        close(&linear(&x, &w, Some(&b))?, &composed(&x, &w, Some(&b))?, 1e-14)
    }
}
