//! The linear map, which makes the gradient of its weight only where that weight trains.

use super::cpu::{Real, for_rows, values};
use super::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, on_every_device, only};
use super::matmul::matmul;
use super::shapes::Shapes;
use candle_core::backend::BackendStorage;
use candle_core::{CustomOp2, Layout, Result, Shape, Storage, Tensor};

/// A linear map of the last dimension, `y = x Wᵀ + b`.
///
/// # Shapes
/// `x` `[.., in]`, `weight` `[out, in]`, `bias` `[out]`, result `[.., out]` in x's float type, whatever the weight's.
///
/// The gradient of W, and the product that makes it, is made only where W leads to a variable: candle's own product makes it always.
///
/// # Errors
/// A last dimension of x other than `in`; a bias of another length or float type than x; a weight that is no matrix of floats.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    only(apply(Linear { x: x.clone(), weight: weight.clone(), bias: bias.cloned() })?)
}

#[derive(Clone)]
struct Linear {
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `[.., n]` as `[rows, n]`.
    fn rows(x: &Tensor) -> Result<Tensor> {
        let n = x.dim(candle_core::D::Minus1)?;
        x.contiguous()?.reshape(((), n))
    }

    /// The weight in x's float type: no copy unless it is stored in another.
    fn weight(&self) -> Result<Tensor> {
        self.weight.to_dtype(self.x.dtype())
    }

    /// The result's shape.
    fn shape(&self) -> Result<Shape> {
        let mut dims = self.x.dims().to_vec();
        dims.pop();
        dims.push(self.weight.dim(0)?);
        Ok(dims.into())
    }
}

impl Step for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, weight: f(&self.weight)?, bias: self.bias.as_ref().map(f).transpose()? })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let out = shapes.matrix("a weight", &self.weight, shapes.channels("x", &self.x)?)?;
        self.bias.as_ref().map_or(Ok(()), |bias| shapes.expect("a bias", bias, &[out]))
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let rows = Self::rows(&self.x)?;
        let y = match self.weight.track_op() {
            true => matmul(&rows, &self.weight()?.t()?)?,
            false => rows.apply_op2(&self.weight()?, FrozenProduct)?,
        };
        let y = self.bias.iter().try_fold(y, |y, bias| y.broadcast_add(bias))?;
        Ok(vec![y.reshape(self.shape()?)?])
    }
}

impl<T: Real> CpuKernel<T> for Linear {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let (rows, weight) = (Self::rows(&self.x.detach())?, self.weight()?);
        let ((x, lx), (w, lw)) = (rows.storage_and_layout(), weight.storage_and_layout());
        let (Storage::Cpu(x), Storage::Cpu(w)) = (&*x, &*w) else {
            candle_core::bail!("linear: expected x and the weight on the CPU")
        };
        let mut y = T::cpu_storage_data(product(x, lx, w, lw)?.0)?;
        if let Some(bias) = &self.bias {
            add_to_rows(&mut y, &values::<T>(bias)?);
        }
        Ok((vec![Output::new(y, self.shape()?)], Some(())))
    }

    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let dy = Self::rows(dy)?;
        if self.x.track_op() {
            grads.give(&self.x, matmul(&dy, &self.weight()?.detach())?.reshape(self.x.shape())?)?;
        }
        if self.weight.track_op() {
            let dw = matmul(&dy.t()?, &Self::rows(&self.x.detach())?)?;
            grads.give(&self.weight, dw.to_dtype(self.weight.dtype())?)?;
        }
        match &self.bias {
            Some(bias) if bias.track_op() => grads.give(bias, dy.sum(0)?),
            _ => Ok(()),
        }
    }
}

/// `x Wᵀ` for rows x and a W that does not train.
struct FrozenProduct;

impl CustomOp2 for FrozenProduct {
    fn name(&self) -> &'static str {
        "frozen-product"
    }

    on_every_device!(|_this, x: lx, w: lw| product(x, lx, w, lw));

    fn bwd(&self, _x: &Tensor, w: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(matmul(&dy.contiguous()?, w)?), None))
    }
}

/// `x Wᵀ`, `[rows, in]` and `[out, in]` to `[rows, out]`, on one device.
fn product<S: BackendStorage>(x: &S, lx: &Layout, w: &S, lw: &Layout) -> Result<(S, Shape)> {
    let ((rows, n_in), (out, _)) = (lx.shape().dims2()?, lw.shape().dims2()?);
    Ok((x.matmul(w, (1, rows, out, n_in), lx, &lw.transpose(0, 1)?)?, (rows, out).into()))
}

fn add_to_rows<T: Real>(y: &mut [T], bias: &[T]) {
    for_rows(y, bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::Var;

    #[test]
    fn gradients_agree_with_finite_differences_whether_frozen_or_not() -> Result<()> {
        let (x, w, b) = (normal(1, &[2, 5, 3])?, normal(2, &[4, 3])?, normal(3, &[4])?);
        for definition in Definition::ALL {
            let linear = |x: &Tensor, w: &Tensor, b: Option<&Tensor>| definition.run(|| linear(x, w, b));
            check(&[&x], |v| linear(&v[0], &w, Some(&b)))?;
            check(&[&x], |v| linear(&v[0], &w, None))?;
            check(&[&x, &w, &b], |v| linear(&v[0], &v[1], Some(&v[2])))?;
        }
        Ok(())
    }

    #[test]
    fn both_definitions_agree_for_tokens_that_lie_either_way_round() -> Result<()> {
        let (x, w, b) = (normal(1, &[2, 6, 3])?, normal(2, &[4, 3])?, normal(3, &[4])?);
        for x in [&x, &x.transpose(0, 1)?, &x.transpose(1, 2)?.contiguous()?.transpose(1, 2)?] {
            let want = x.contiguous()?.flatten_to(1)?.matmul(&w.t()?)?.broadcast_add(&b)?;
            for definition in Definition::ALL {
                close(&definition.run(|| linear(x, &w, Some(&b)))?.flatten_to(1)?, &want, 1e-14)?;
            }
        }
        Ok(())
    }

    #[test]
    fn no_gradient_of_a_frozen_weight_is_made() -> Result<()> {
        let (x, w) = (Var::from_tensor(&normal(1, &[2, 3])?)?, normal(2, &[4, 3])?);
        for definition in Definition::ALL {
            let gradients = definition.run(|| linear(&x, &w, None))?.backward()?;
            assert!(gradients.get(&x).is_some() && gradients.get(&w).is_none(), "{definition:?}");
        }
        Ok(())
    }
}
