//! Whether a tensor holds numbers alone.

use crate::readback;
use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

/// Whether no value is NaN or infinite; one that is spoils what is computed from it, or is lost in a ReLU and nobody learns of it.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    match look(tensor)? {
        Finite::Known(finite) => Ok(finite),
        Finite::Unread(zero) => Ok(readback::numbers([&zero])? == [0.0]),
    }
}

/// What is known of a tensor's values without waiting for its device.
pub(crate) enum Finite {
    /// Whether all are numbers.
    Known(bool),
    /// One value on the tensor's device: 0 where all are numbers, NaN otherwise.
    Unread(Tensor),
}

/// Looks at values that lie in this process's memory, and has a device look at its own.
pub(crate) fn look(tensor: &Tensor) -> Result<Finite> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else { return of_product(&tensor).map(Finite::Unread) };
    let finite = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => all(&values[start..end], |value| value.is_finite()),
        Storage::Cpu(CpuStorage::F64(values)) => all(&values[start..end], |value| value.is_finite()),
        Storage::Cpu(CpuStorage::F16(values)) => all(&values[start..end], |value| value.is_finite()),
        Storage::Cpu(CpuStorage::BF16(values)) => all(&values[start..end], |value| value.is_finite()),
        Storage::Cpu(_) => true,
        _ => return of_product(&tensor).map(Finite::Unread),
    };
    Ok(Finite::Known(finite))
}

/// A piece is looked at to its end, which the compiler does for many values at once.
fn all<T: Copy>(values: &[T], holds: impl Fn(T) -> bool) -> bool {
    values.chunks(4096).all(|piece| piece.iter().fold(true, |all, value| all & holds(*value)))
}

/// On any device: 0 times a number is 0, and 0 times anything else is NaN.
fn of_product(tensor: &Tensor) -> Result<Tensor> {
    (tensor.detach() * 0.0)?.sum_all()?.to_dtype(DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn by_product(tensor: &Tensor) -> Result<bool> {
        Ok(readback::numbers([&of_product(tensor)?])? == [0.0])
    }

    #[test]
    fn each_float_type_is_looked_at_to_its_end_and_no_further() -> Result<()> {
        for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
            for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut values = vec![0.5; 10_000];
                values[9_999] = wrong;
                let tensor = Tensor::new(values, &Device::Cpu)?.to_dtype(dtype)?;
                assert!(!is_finite(&tensor)? && !by_product(&tensor)?, "{wrong} in {dtype:?}");
                let before = tensor.narrow(0, 0, 9_999)?;
                assert!(is_finite(&before)? && by_product(&before)?, "{dtype:?}");
            }
        }
        let columns = Tensor::new(&[[1f32, f32::NAN], [2.0, f32::NAN]], &Device::Cpu)?.t()?;
        assert!(is_finite(&columns.get(0)?)? && !is_finite(&columns)?);
        assert!(is_finite(&Tensor::new(&[1u8, 255], &Device::Cpu)?)?);
        is_finite(&Tensor::new(&[0f32; 0], &Device::Cpu)?).map(|finite| assert!(finite))
    }
}
