//! Losses that are means over the pixels of maps.
//!
//! Labels have one value, `ignore`, for pixels that leave sums and counts. A map without a valid pixel has loss 0 and no
//! gradient. Half precision is computed in f32.

mod balanced_bce;
mod cross_entropy;
mod l1;
mod lanes;
mod normals_l1;
mod pixels;

pub(crate) use balanced_bce::balanced_bce;
pub(crate) use cross_entropy::{check_classes, cross_entropy};
pub(crate) use l1::l1;
pub(crate) use normals_l1::normals_l1;

use super::shapes::Shapes;
use candle_core::{D, DType, Result, Tensor};

/// What a label has in the place of the outputs' channels.
#[derive(Clone, Copy, PartialEq)]
enum LabelOf {
    /// One value.
    Pixels,
    /// As many.
    Channels,
}

/// Outputs `[B, n, ..]` with a label of the same pixels.
fn check(shapes: Shapes, outputs: &Tensor, label: &Tensor, of: LabelOf) -> Result<()> {
    shapes.channels("outputs", outputs)?;
    let dims = outputs.dims();
    let [b, n, rest @ ..] = dims else { candle_core::bail!("a loss: expected outputs [B, n, ..], got {dims:?}") };
    let n = if of == LabelOf::Pixels { 1 } else { *n };
    shapes.expect("a label", label, &[&[*b, n], rest].concat())
}

/// Scores in a float type that losses are computed in.
fn wide(outputs: &Tensor) -> Result<Tensor> {
    if outputs.dtype() == DType::F64 { Ok(outputs.clone()) } else { outputs.to_dtype(DType::F32) }
}

/// A label beside its mask: 0 where ignored and 1 elsewhere, and the values with 0 in the ignored places.
fn masked(label: &Tensor, dtype: DType, ignore: f32) -> Result<(Tensor, Tensor)> {
    let mask = label.ne(f64::from(ignore))?;
    let values = mask.where_cond(label, &label.zeros_like()?)?;
    Ok((values.to_dtype(dtype)?, mask.to_dtype(dtype)?))
}

/// The sum of all values, dimension by dimension: in f32 candle's `sum_all` is 0.2 % off over the 6 million pixels of the
/// recipe's batch (the value, not the gradient).
fn total(values: &Tensor) -> Result<Tensor> {
    (0..values.rank()).try_fold(values.clone(), |sum, _| sum.sum(D::Minus1))
}

/// `|x|` whose gradient at 0 is 0, as PyTorch's; candle's `abs` has 1 there.
fn absolute(x: &Tensor) -> Result<Tensor> {
    x * x.detach().sign()?
}

/// `sum / count`, or 0 where there is nothing to count; the count carries no gradient.
fn mean_over(sum: &Tensor, count: &Tensor) -> Result<Tensor> {
    sum / count.maximum(1.0)?
}

#[cfg(test)]
mod tests;
