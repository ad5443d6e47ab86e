//! A file's bytes as the values of a tensor: read to their place, and copied no second time.

use crate::{Error, Result};
use bytemuck::Pod;
use candle_core::{Device, Tensor, WithDType};
use half::{bf16, f16};
use safetensors::Dtype;
use std::path::Path;

#[cfg(target_endian = "big")]
compile_error!("files hold little-endian values, and memory is filled with their bytes as they stand");

/// `count` values of this type, `[count]`, whose bytes `fill` writes.
///
/// # Errors
/// A type whose values are not read here; more values than there is memory for; what `fill` says.
pub(crate) fn values(
    path: &Path,
    dtype: Dtype,
    count: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    match dtype {
        Dtype::F32 => filled::<f32>(path, count, fill),
        Dtype::F64 => filled::<f64>(path, count, fill),
        Dtype::F16 => filled::<f16>(path, count, fill),
        Dtype::BF16 => filled::<bf16>(path, count, fill),
        Dtype::I64 => filled::<i64>(path, count, fill),
        Dtype::I32 => filled::<i32>(path, count, fill),
        Dtype::I16 => filled::<i16>(path, count, fill),
        Dtype::U32 => filled::<u32>(path, count, fill),
        Dtype::U8 => filled::<u8>(path, count, fill),
        _ => Err(Error::file(path, format!("values of type {dtype:?}, which is not read here"), "save them as F32")),
    }
}

fn filled<T: WithDType + Pod>(path: &Path, count: usize, fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Tensor> {
    let no_room = |()| Error::file(path, format!("no memory for {count} values of one tensor"), "take a smaller model");
    let mut values = bytemuck::allocation::try_zeroed_slice_box::<T>(count).map_err(no_room)?;
    fill(bytemuck::cast_slice_mut(&mut values))?;
    Ok(Tensor::from_vec(values.into_vec(), count, &Device::Cpu)?)
}
