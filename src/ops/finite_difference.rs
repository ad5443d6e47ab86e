//! The oracle of every gradient: central differences in f64.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Seeded normal values in f64.
pub(crate) fn normal(seed: u64, dims: &[usize]) -> Result<Tensor> {
    let rng = StdRng::seed_from_u64(seed);
    let values: Vec<f64> = StandardNormal.sample_iter(rng).take(dims.iter().product()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}

/// Fails unless the two tensors agree to `tolerance` of the second's largest value.
pub(crate) fn close(got: &Tensor, want: &Tensor, tolerance: f64) -> Result<()> {
    assert_eq!(got.dims(), want.dims());
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (got, want) = (values(got)?, values(want)?);
    let scale = want.iter().fold(1e-12f64, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(&want).fold(0f64, |m, (a, b)| m.max((a - b).abs() / scale));
    assert!(worst <= tolerance, "relative error {worst:.2e} above {tolerance:.0e}");
    Ok(())
}

/// Compares candle's gradient of `sum(f(x) * c)`, c fixed and random, with central differences in each input.
pub(crate) fn check(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let vars = inputs.iter().map(|t| Var::from_tensor(t)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let c = normal(99, y.dims())?;
    let grads = (&y * &c)?.sum_all()?.backward()?;
    let value = |inputs: &[Tensor]| (f(inputs)? * &c)?.sum_all()?.to_scalar::<f64>();
    for (i, var) in vars.iter().enumerate() {
        let Some(grad) = grads.get(var) else { panic!("input {i} got no gradient") };
        let mut plain: Vec<Tensor> = inputs.iter().map(|t| (*t).clone()).collect();
        let base: Vec<f64> = inputs[i].flatten_all()?.to_vec1()?;
        let step = 1e-5;
        let mut numeric = Vec::with_capacity(base.len());
        for j in 0..base.len() {
            let mut at = |delta: f64| {
                let mut moved = base.clone();
                moved[j] += delta;
                plain[i] = Tensor::from_vec(moved, inputs[i].dims(), &Device::Cpu)?;
                value(&plain)
            };
            numeric.push((at(step)? - at(-step)?) / (2.0 * step));
        }
        close(grad, &Tensor::from_vec(numeric, inputs[i].dims(), &Device::Cpu)?, 1e-6)?;
    }
    Ok(())
}
