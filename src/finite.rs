//! Whether a tensor holds numbers alone.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

/// Whether no value is NaN or infinite; one that is spoils what is computed from it, or is lost in a ReLU and nobody learns of it.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { return of_product(&tensor) };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(all(&values[start..end], |value| value.is_finite())),
        Storage::Cpu(CpuStorage::F64(values)) => Ok(all(&values[start..end], |value| value.is_finite())),
        Storage::Cpu(CpuStorage::F16(values)) => Ok(all(&values[start..end], |value| value.is_finite())),
        Storage::Cpu(CpuStorage::BF16(values)) => Ok(all(&values[start..end], |value| value.is_finite())),
        Storage::Cpu(_) => Ok(true),
        _ => of_product(&tensor),
    }
}

/// A piece is looked at to its end, which the compiler does for many values at once.
fn all<T: Copy>(values: &[T], holds: impl Fn(T) -> bool) -> bool {
    values.chunks(4096).all(|piece| piece.iter().fold(true, |all, value| all & holds(*value)))
}

/// On any device: 0 times a number is 0, and 0 times anything else is NaN.
fn of_product(tensor: &Tensor) -> Result<bool> {
    let sum = (tensor * 0.0)?.sum_all()?.to_dtype(DType::F32)?;
    Ok(sum.to_scalar::<f32>()? == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn each_float_type_is_looked_at_to_its_end_and_no_further() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut values = vec![0.5; 10_000];
                values[9_999] = wrong;
                let tensor = Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?;
                assert!(!is_finite(&tensor)? && !of_product(&tensor)?, "{wrong} in {dtype:?}");
                let before = tensor.narrow(0, 0, 9_999)?;
                assert!(is_finite(&before)? && of_product(&before)?, "{dtype:?}");
            }
        }
        let columns = Tensor::new(&[[1f32, f32::NAN], [2.0, f32::NAN]], &Device::Cpu)?.t()?;
        assert!(is_finite(&columns.get(0)?)? && !is_finite(&columns)?);
        assert!(is_finite(&Tensor::new(&[1u8, 255], &Device::Cpu)?)?);
        is_finite(&Tensor::new(&[0f32; 0], &Device::Cpu)?).map(|finite| assert!(finite))
    }
}
