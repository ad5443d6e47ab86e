//! Numbers read back from where they were computed: the one place that waits for a device.

use candle_core::{DType, Result, Tensor};

/// The values of several tensors, one after another, in one read: each waits until the device has computed all that it was asked for.
///
/// In f64 where one of them is, in f32 otherwise: not every device has f64.
pub(crate) fn numbers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Vec<f64>> {
    let flat = tensors.into_iter().map(|tensor| tensor.detach().flatten_all()).collect::<Result<Vec<_>>>()?;
    if flat.is_empty() {
        return Ok(Vec::new());
    }
    let wide = flat.iter().any(|tensor| tensor.dtype() == DType::F64);
    let dtype = if wide { DType::F64 } else { DType::F32 };
    let flat = flat.iter().map(|tensor| tensor.to_dtype(dtype)).collect::<Result<Vec<_>>>()?;
    let together = Tensor::cat(&flat, 0)?;
    #[cfg(test)]
    reads::count();
    match dtype {
        DType::F64 => together.to_vec1(),
        _ => Ok(together.to_vec1::<f32>()?.into_iter().map(f64::from).collect()),
    }
}

/// How often the tests' threads have read.
#[cfg(test)]
pub(crate) mod reads {
    use std::cell::Cell;

    thread_local! {
        static READS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        READS.set(READS.get() + 1);
    }

    /// Of this thread during `work`.
    pub(crate) fn during<R>(work: impl FnOnce() -> R) -> (R, usize) {
        let before = READS.get();
        let result = work();
        (result, READS.get() - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tensors_of_any_shape_and_float_type_come_in_order_by_one_read() -> Result<()> {
        let (one, two) = (Tensor::new(1f32, &Device::Cpu)?, Tensor::new(&[[2f32], [3.0]], &Device::Cpu)?);
        let (values, count) = reads::during(|| numbers([&one, &two.to_dtype(DType::F16)?]));
        assert_eq!((values?, count), (vec![1.0, 2.0, 3.0], 1));
        let precise = Tensor::new(1.0 + 1e-12, &Device::Cpu)?;
        assert_eq!(numbers([&two, &precise])?, [2.0, 3.0, 1.0 + 1e-12]);
        assert_eq!(reads::during(|| numbers([])).1, 0);
        Ok(())
    }
}
