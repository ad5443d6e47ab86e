//! Tensors as slices that kernels read.

use super::float::Real;
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

/// The values of a contiguous storage.
pub(in crate::ops) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => candle_core::bail!("a fused kernel needs contiguous tensors"),
    }
}

/// The values of a contiguous tensor, borrowed.
pub(in crate::ops) struct Values<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + Sync + 'a>,
    range: Range<usize>,
    float: PhantomData<T>,
}

/// Borrows a tensor's values.
pub(in crate::ops) fn values<T: WithDType>(tensor: &Tensor) -> Result<Values<'_, T>> {
    values_at(tensor, tensor.layout().contiguous_offsets())
}

/// Borrows the values of a tensor's storage from the first of `places` up to the second.
pub(in crate::ops) fn values_at<T: WithDType>(
    tensor: &Tensor,
    places: Option<(usize, usize)>,
) -> Result<Values<'_, T>> {
    let (storage, _) = tensor.storage_and_layout();
    let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, places) else {
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

/// A tensor's values in the type that a kernel computes in: borrowed where they are of that type, else converted.
pub(in crate::ops) enum Loan<'a, T> {
    Borrowed(Values<'a, T>),
    Owned(Vec<T>),
}

/// Lends a contiguous tensor's values.
pub(in crate::ops) fn loan<T: Real>(tensor: &Tensor) -> Result<Loan<'_, T>> {
    loan_at(tensor, tensor.layout().contiguous_offsets())
}

pub(in crate::ops) fn loan_at<T: Real>(tensor: &Tensor, places: Option<(usize, usize)>) -> Result<Loan<'_, T>> {
    match tensor.dtype() {
        dtype if dtype == T::DTYPE => values_at(tensor, places).map(Loan::Borrowed),
        DType::BF16 => Ok(Loan::Owned(widened(&values_at::<bf16>(tensor, places)?))),
        DType::F16 => Ok(Loan::Owned(widened(&values_at::<f16>(tensor, places)?))),
        other => candle_core::bail!("a fused kernel computing in {:?} reads no {other:?}", T::DTYPE),
    }
}

/// Lends the values of a matrix that is stored by rows or by columns.
pub(in crate::ops) fn lend_matrix<T: Real>(tensor: &Tensor) -> Result<(Loan<'_, T>, Stored)> {
    if let Some(places) = tensor.layout().contiguous_offsets() {
        return Ok((loan_at(tensor, Some(places))?, Stored::Rows));
    }
    Ok((loan_at(tensor, tensor.layout().transpose(0, 1)?.contiguous_offsets())?, Stored::Columns))
}

/// Half-precision values in the type that a kernel computes in.
pub(in crate::ops) fn widened<H: WithDType, T: Real>(halves: &[H]) -> Vec<T>
where
    [H]: HalfFloatSliceExt,
{
    const PART: usize = 4096; // stays in the first cache
    let mut wide = vec![T::zero(); halves.len()];
    wide.par_chunks_mut(PART).zip(halves.par_chunks(PART)).for_each(|(wide, halves)| {
        let mut singles = [0f32; PART];
        let singles = &mut singles[..halves.len()];
        halves.convert_to_f32_slice(singles);
        wide.iter_mut().zip(singles).for_each(|(wide, single)| *wide = T::of(f64::from(*single)));
    });
    wide
}

impl<T: WithDType> Deref for Loan<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Borrowed(values) => values,
            Self::Owned(values) => values,
        }
    }
}

/// The way round that a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Stored {
    Rows,
    Columns,
}
