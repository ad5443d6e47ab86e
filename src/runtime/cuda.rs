//! CUDA devices: one stream for all threads, and memory that is kept.
#![allow(unsafe_code)] // calls of the CUDA driver

use candle_core::cuda::cudarc::driver::{result, sys};
use candle_core::{CudaDevice, Device, Error, Result};

/// The GPU of this number, with a stream of its own. To be called once a GPU: see [`one_stream`].
pub(super) fn device(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    one_stream(cuda);
    keep_memory(cuda)?;
    Ok(device)
}

/// No events beside the stream.
///
/// `Device::new_cuda` computes on the stream of the thread that calls: another in each thread, with nothing that orders them, so that a
/// weight made in one thread may be read in another before it is written. A device made with a stream of its own has the same in every
/// thread, and that orders everything; two events for each allocation, which candle would keep as well, order nothing more.
fn one_stream(device: &CudaDevice) {
    // SAFETY: asks that tensors of several streams be ordered by the caller. `parse_device` makes one device, and so one stream, of each
    // GPU, and this is called before the device has made a tensor.
    unsafe { device.disable_event_tracking() }
}

/// Freed memory stays with the process: by default all of it goes back to the system whenever the device is waited for.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let Some(pool) = pool(device)? else { return Ok(()) };
    let (attribute, mut threshold) = (sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX);
    // SAFETY: the pool is the one that the driver names, and this attribute is a u64.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()) }.map_err(Error::wrap)
}

/// The most bytes that tensors of this GPU have taken at once.
pub(super) fn peak_memory(device: &CudaDevice) -> Result<Option<u64>> {
    let Some(pool) = pool(device)? else { return Ok(None) };
    let (attribute, mut most) = (sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0u64);
    // SAFETY: as above; the driver writes a u64.
    unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut most).cast()) }.map_err(Error::wrap)?;
    Ok(Some(most))
}

/// Where the device's memory comes from; old devices have no pool.
fn pool(device: &CudaDevice) -> Result<Option<sys::CUmemoryPool>> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    // SAFETY: the device is the context's own.
    unsafe { result::device::get_mem_pool(context.cu_device()) }.map(Some).map_err(Error::wrap)
}
