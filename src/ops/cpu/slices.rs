//! Tensors as slices that kernels read.

use super::float::Real;
use candle_core::{DType, Result, Storage, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::{Deref, Range};

/// A tensor's values in the type that a kernel computes in: borrowed where they lie in order and are of that type, else made.
pub(in crate::ops) enum Values<'a, T> {
    Borrowed(Borrowed<'a, T>),
    Owned(Vec<T>),
}

/// A part of a tensor's storage.
pub(in crate::ops) struct Borrowed<'a, T> {
    storage: Box<dyn Deref<Target = Storage> + Sync + 'a>,
    range: Range<usize>,
    float: PhantomData<T>,
}

/// The way round that a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Stored {
    Rows,
    Columns,
}

/// A tensor's values, row by row.
pub(in crate::ops) fn values<T: Real>(tensor: &Tensor) -> Result<Values<'_, T>> {
    match tensor.layout().contiguous_offsets() {
        Some(places) => values_at(tensor, places),
        None => Ok(Values::Owned(values(&tensor.contiguous()?)?.to_vec())),
    }
}

/// The values of a matrix, whichever way round it is stored.
pub(in crate::ops) fn matrix_values<T: Real>(tensor: &Tensor) -> Result<(Values<'_, T>, Stored)> {
    match tensor.layout().transpose(0, 1)?.contiguous_offsets() {
        Some(places) if !tensor.is_contiguous() => Ok((values_at(tensor, places)?, Stored::Columns)),
        _ => Ok((values(tensor)?, Stored::Rows)),
    }
}

/// The values of a tensor's storage from the first of `places` up to the second.
fn values_at<T: Real>(tensor: &Tensor, places: (usize, usize)) -> Result<Values<'_, T>> {
    match tensor.dtype() {
        dtype if dtype == T::DTYPE => borrowed(tensor, places).map(Values::Borrowed),
        DType::BF16 => Ok(Values::Owned(widened(&borrowed::<bf16>(tensor, places)?))),
        DType::F16 => Ok(Values::Owned(widened(&borrowed::<f16>(tensor, places)?))),
        DType::F32 => {
            Ok(Values::Owned(borrowed::<f32>(tensor, places)?.iter().map(|v| T::of(f64::from(*v))).collect()))
        }
        DType::F64 => Ok(Values::Owned(borrowed::<f64>(tensor, places)?.iter().map(|v| T::of(*v)).collect())),
        other => candle_core::bail!("a kernel computing in {:?} reads no {other:?}", T::DTYPE),
    }
}

fn borrowed<T: WithDType>(tensor: &Tensor, (start, end): (usize, usize)) -> Result<Borrowed<'_, T>> {
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cpu(cpu) = &*storage else { candle_core::bail!("a kernel on the CPU reads tensors on the CPU") };
    T::cpu_storage_as_slice(cpu)?;
    Ok(Borrowed { storage: Box::new(storage), range: start..end, float: PhantomData })
}

impl<T: WithDType> Deref for Borrowed<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &**self.storage {
            Storage::Cpu(cpu) => T::cpu_storage_as_slice(cpu).map_or(&[], |all| &all[self.range.clone()]),
            _ => &[],
        }
    }
}

impl<T: WithDType> Deref for Values<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Borrowed(values) => values,
            Self::Owned(values) => values,
        }
    }
}

/// Half-precision values in the type that a kernel computes in.
fn widened<H: WithDType, T: Real>(halves: &[H]) -> Vec<T>
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
