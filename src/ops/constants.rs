//! Constants made on the host.

use candle_core::{DType, Device, Result, Shape, Tensor};

/// Values as a tensor of a float type, by way of f32 unless that is f64: some devices have no f64.
pub(super) fn constants(values: &[f64], shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    if dtype == DType::F64 {
        return Tensor::from_slice(values, shape, device);
    }
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
}
