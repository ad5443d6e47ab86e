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
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(()); // memory comes from no pool
    }
    let mut threshold = u64::MAX;
    // SAFETY: the device is the context's own, the pool is the one that the driver names, and this attribute is a u64.
    let kept = unsafe {
        result::device::get_mem_pool(context.cu_device()).and_then(|pool| {
            let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            result::mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())
        })
    };
    kept.map_err(Error::wrap)
}
