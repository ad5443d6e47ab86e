//! What the fused CPU kernels share: float types, slices of tensors, rows in parallel.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;
use std::iter::Sum;
use std::marker::PhantomData;
use std::ops::{AddAssign, Deref, Range};

/// A float type that kernels compute in.
pub(super) trait Real: Float + WithDType + Sum + AddAssign + Send + Sync {
    /// A constant.
    fn of(value: f64) -> Self;

    /// The error function.
    fn erf(self) -> Self;
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn erf(self) -> Self {
        libm::erf(self)
    }
}

impl Real for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }

    /// A quotient of polynomials, odd over even, good to a few units in the last place; a loop over it runs in vector registers.
    fn erf(self) -> Self {
        const ODD: [f32; 7] = [
            -2.726_142_3e-10,
            2.770_681_4e-8,
            -2.101_024e-6,
            -5.692_506_4e-5,
            -7.349_906_3e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ];
        const EVEN: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
        let x = self.clamp(-4.0, 4.0); // beyond, it is ±1 to f32
        let square = x * x;
        let horner = |sum: f32, c: &f32| sum * square + c;
        x * ODD.iter().fold(0.0, horner) / EVEN.iter().fold(0.0, horner)
    }
}

/// Whether a fused kernel can stand in: f32 or f64 on the CPU.
pub(super) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), candle_core::DType::F32 | candle_core::DType::F64)
}

/// The values of a contiguous storage.
pub(super) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => candle_core::bail!("a fused kernel needs contiguous tensors"),
    }
}

/// The values of a contiguous tensor, borrowed.
pub(super) struct Values<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: Range<usize>,
    float: PhantomData<T>,
}

/// Borrows a tensor's values.
pub(super) fn values<T: WithDType>(tensor: &Tensor) -> Result<Values<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a fused kernel needs contiguous tensors on the CPU")
    };
    T::cpu_storage_as_slice(cpu)?;
    Ok(Values { storage: Box::new(storage), range: start..end, float: PhantomData })
}

impl<T: WithDType> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &**self.storage {
            Storage::Cpu(cpu) => T::cpu_storage_as_slice(cpu).map_or(&[], |all| &all[self.range.clone()]),
            _ => &[],
        }
    }
}

/// Values a thread takes at a time: large enough that handing out costs nothing, small enough for the cache.
const GRAIN: usize = 1 << 14;

/// Calls `f(first, rows)` on groups of rows of `width` values of `out`, in parallel; `first` is the first row's number.
pub(super) fn for_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    let rows = (GRAIN / width.max(1)).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
}

/// Sums over rows in a fixed order, whatever the threads: `add(row, sum)` for each of `rows` adds into `width` sums.
pub(super) fn sum_rows<T: Real>(rows: usize, width: usize, add: impl Fn(usize, &mut [T]) + Sync + Send) -> Vec<T> {
    let group = rows.div_ceil(64).max(1); // as many groups whatever the machine: the same sums everywhere
    let partial: Vec<Vec<T>> = (0..rows.div_ceil(group))
        .into_par_iter()
        .map(|g| {
            let mut sum = vec![T::zero(); width];
            (g * group..rows.min((g + 1) * group)).for_each(|row| add(row, &mut sum));
            sum
        })
        .collect();
    let mut total = vec![T::zero(); width];
    for part in partial {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// Runs a kernel in the storage's float type.
macro_rules! by_float {
    ($dtype:expr, $kernel:ident ( $($arg:expr),* )) => {
        match $dtype {
            candle_core::DType::F32 => $kernel::<f32>($($arg),*),
            candle_core::DType::F64 => $kernel::<f64>($($arg),*),
            other => candle_core::bail!("a fused kernel computes in f32 or f64, got {other:?}"),
        }
    };
}
pub(super) use by_float;

#[cfg(test)]
mod tests {
    use super::Real;

    #[test]
    fn erf_in_f32_is_good_to_its_last_places() {
        for i in -6000..=6000 {
            let x = i as f32 / 1000.0;
            let error = (f64::from(Real::erf(x)) - libm::erf(f64::from(x))).abs();
            assert!(error < 4e-7, "{x}: {error:.1e}");
        }
    }
}
