//! Resizing maps: bilinear with a gradient, and bicubic for bias tables.

use super::constants::constants;
use super::cpu::bands::{Bands, separable};
use super::cpu::{Real, values};
use super::graph::{CpuKernel, InputGradients, Keep, OnTensor, Output, Passed, Step, apply, only};
use super::linear;
use super::shapes::Shapes;
use candle_core::{DType, Device, Result, Tensor};

/// Bilinear resizing, `align_corners` false, as `torch.nn.functional.interpolate` does it.
///
/// # Shapes
/// `[B, C, h, w]` to `[B, C, height, width]`.
///
/// A product with a constant matrix along each axis, so that its gradient is the transposed product. The matrices are bands;
/// the fused kernel looks at nothing outside them.
///
/// # Errors
/// An x of other than four dimensions or without values; a size without values, or with more than memory can hold.
pub fn bilinear(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    match x.dims() {
        [.., h, w] if (*h, *w) == size && x.rank() == 4 => Ok(x.clone()),
        _ => only(apply(Bilinear { x: x.clone(), size })?),
    }
}

#[derive(Clone)]
struct Bilinear {
    x: Tensor,
    size: (usize, usize),
}

impl Step for Bilinear {
    fn name(&self) -> &'static str {
        "bilinear"
    }

    fn map(&self, f: &mut OnTensor) -> Result<Self> {
        Ok(Self { x: f(&self.x)?, ..*self })
    }

    fn check(&self, shapes: Shapes) -> Result<()> {
        let ([b, c, h, w], (height, width)) = (shapes.sizes("x", &self.x)?, self.size);
        shapes.result(&[b, c, h.max(height), w.max(width)])?; // one side after the other
        [[h, height], [w, width]].iter().try_for_each(|matrix| shapes.result(matrix))
    }

    fn composed(&self) -> Result<Vec<Tensor>> {
        let wide = along_last(&self.x, self.size.1, linear_taps)?;
        let tall = along_last(&wide.transpose(2, 3)?, self.size.0, linear_taps)?;
        Ok(vec![tall.transpose(2, 3)?.contiguous()?])
    }
}

impl<T: Real> CpuKernel<T> for Bilinear {
    type Saved = ();

    fn forward(&self, _: Keep) -> Result<Passed<()>> {
        let ((b, c, h, w), (height, width)) = (self.x.dims4()?, self.size);
        let along = |from, to| Bands::of(from, (0..to).map(|i| linear_taps(centre(i, from, to), from)).collect());
        let y = separable(&values::<T>(&self.x)?, &along(h, height), &along(w, width));
        Ok((vec![Output::new(y, (b, c, height, width))], Some(())))
    }

    /// Each input gathers from the outputs that it went into.
    fn backward(&self, (): (), outputs: Vec<Option<Tensor>>, grads: &mut InputGradients) -> Result<()> {
        let Some(Some(dy)) = outputs.first() else { return Ok(()) };
        let ((_, _, h, w), (height, width)) = (self.x.dims4()?, self.size);
        let along = |from, to| Bands::of(to, transposed(from, to));
        grads.give_values(&self.x, separable(&values::<T>(dy)?, &along(h, height), &along(w, width)))
    }
}

/// For each input position the output positions it goes into, and with which weight.
pub(super) fn transposed(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    let mut into = vec![Vec::new(); from];
    for i in 0..to {
        linear_taps(centre(i, from, to), from).into_iter().for_each(|(at, weight)| into[at].push((i, weight)));
    }
    into
}

/// Bicubic resizing (a = -0.75, `align_corners` false, no antialias) of square tables: `[heads, m, m]` to `[heads, n, n]`.
///
/// # Errors
/// Tables of other than three dimensions or without values; an n of 0, or one that memory has no room for.
pub(crate) fn bicubic_square(tables: &Tensor, n: usize) -> Result<Tensor> {
    let shapes = Shapes::of("bicubic", tables)?;
    let [heads, _, _] = shapes.sizes("tables", tables)?;
    shapes.result(&[heads, n, n])?;
    let wide = along_last(tables, n, cubic_taps)?;
    along_last(&wide.transpose(1, 2)?, n, cubic_taps)?.transpose(1, 2)?.contiguous()
}

/// The two input positions around an output position, and their weights.
pub(crate) type Taps2 = [(usize, f32); 2];

/// Where each of `to` output positions falls on `from` input positions, as [`bilinear`] places them.
pub(crate) fn bilinear_taps(from: usize, to: usize) -> Vec<Taps2> {
    two_taps(from, to).into_iter().map(|taps| taps.map(|(at, weight)| (at, weight as f32))).collect()
}

/// [`bilinear_taps`] in f64.
pub(super) fn two_taps(from: usize, to: usize) -> Vec<[(usize, f64); 2]> {
    let taps = |i: usize| linear_taps(centre(i, from, to), from);
    (0..to).map(|i| [taps(i)[0], taps(i)[1]]).collect()
}

fn centre(i: usize, from: usize, to: usize) -> f64 {
    (i as f64 + 0.5) * from as f64 / to as f64 - 0.5
}

/// Where an output position falls on the input, and the weights of the input positions around it.
type Taps = fn(f64, usize) -> Vec<(usize, f64)>;

fn along_last(x: &Tensor, to: usize, taps: Taps) -> Result<Tensor> {
    let from = x.dim(candle_core::D::Minus1)?;
    linear(x, &matrix(from, to, taps, x.dtype(), x.device())?, None)
}

/// `[to, from]`: row i holds the weights with which the inputs make output i.
fn matrix(from: usize, to: usize, taps: Taps, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut weights = vec![0f64; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        for (at, weight) in taps(centre(i, from, to), from) {
            row[at] += weight;
        }
    }
    constants(&weights, (to, from), dtype, device)
}

fn linear_taps(centre: f64, from: usize) -> Vec<(usize, f64)> {
    let centre = centre.max(0.0); // the left border repeats its first value
    let (low, t) = (centre.floor() as usize, centre.fract());
    vec![(low, 1.0 - t), ((low + 1).min(from - 1), t)]
}

fn cubic_taps(centre: f64, from: usize) -> Vec<(usize, f64)> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let (low, t) = (centre.floor(), centre - centre.floor());
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let at = |k: usize| (low + k as f64 - 1.0).clamp(0.0, (from - 1) as f64) as usize;
    weights.into_iter().enumerate().map(|(k, weight)| (at(k), weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Definition;
    use crate::ops::finite_difference::{check, close, normal};
    use candle_core::Var;

    #[test]
    fn bilinear_values_as_torch_gives_them() -> Result<()> {
        let x = Tensor::new(&[[[[0f64, 1.], [2., 3.]]]], &Device::Cpu)?;
        let want = [[0., 0.25, 0.75, 1.], [0.5, 0.75, 1.25, 1.5], [1.5, 1.75, 2.25, 2.5], [2., 2.25, 2.75, 3.]];
        close(&bilinear(&x, (4, 4))?, &Tensor::new(&[[want]], x.device())?, 1e-14)
    }

    #[test]
    fn bilinear_gradient_up_down_and_odd() -> Result<()> {
        for size in [(7, 5), (2, 3), (3, 9)] {
            check(&[&normal(1, &[2, 2, 3, 4])?], |v| bilinear(&v[0], size))?;
            check(&[&normal(1, &[2, 2, 3, 4])?], |v| Definition::Composed.run(|| bilinear(&v[0], size)))?;
        }
        Ok(())
    }

    /// Compares values and gradients of the two definitions, in both float types.
    fn agree(x: &Tensor, size: (usize, usize)) -> Result<()> {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
            let x = Var::from_tensor(&x.to_dtype(dtype)?)?;
            let [got, want] = Definition::ALL.map(|definition| definition.run(|| bilinear(&x, size)));
            let (got, want) = (got?, want?);
            close(&got, &want, tolerance)?;
            let c = normal(2, want.dims())?.to_dtype(dtype)?;
            let gradient =
                |y: &Tensor| Ok::<_, candle_core::Error>((y * &c)?.sum_all()?.backward()?.remove(&x).unwrap());
            close(&gradient(&got)?, &gradient(&want)?, tolerance)?;
        }
        Ok(())
    }

    #[test]
    fn fused_and_composed_bilinear_agree() -> Result<()> {
        let x = normal(1, &[2, 3, 13, 9])?;
        // Up by 4, by 8 and by odd factors, down, one axis alone, to one value, several blocks of rows.
        for size in [(52, 36), (104, 72), (39, 20), (5, 4), (13, 20), (30, 9), (1, 1), (150, 3), (6, 90)] {
            for x in [&x, &x.narrow(2, 4, 1)?, &x.t()?] {
                agree(x, size)?;
            }
        }
        // Most rows go nowhere, in every block of them.
        agree(&normal(3, &[1, 1, 200, 40])?, (9, 3))
    }

    #[test]
    fn bilinear_of_nothing_to_nothing_or_beyond_memory_is_refused() -> Result<()> {
        let x = Tensor::zeros((1, 2, 3, 4), DType::F32, &Device::Cpu)?;
        for (x, size) in [(&x.narrow(0, 0, 0)?, (6, 8)), (&x, (0, 8)), (&x, (usize::MAX, 2)), (&x, (1 << 40, 1 << 40))]
        {
            assert!(bilinear(x, size).unwrap_err().to_string().contains("bilinear: expected"));
        }
        Ok(())
    }

    #[test]
    fn bicubic_weights_halving_and_tripling() -> Result<()> {
        let row = [1f64, 5., 2., 7.];
        let table = Tensor::new(&row, &Device::Cpu)?.broadcast_as((1, 4, 4))?.contiguous()?;
        let (near, far) = (0.59375, -0.09375); // the kernel at 0.5 and 1.5
        let want = [
            (near + far) * row[0] + near * row[1] + far * row[2],
            far * row[1] + near * row[2] + (near + far) * row[3],
        ];
        close(&bicubic_square(&table, 2)?, &Tensor::new(&[[want, want]], &Device::Cpu)?, 1e-12)?;
        let tripled = bicubic_square(&table, 12)?.to_vec3::<f64>()?;
        assert!(row.iter().enumerate().all(|(j, v)| (tripled[0][5][3 * j + 1] - v).abs() < 1e-12));
        Ok(())
    }
}
