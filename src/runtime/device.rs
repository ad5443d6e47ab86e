//! Devices by name.

use crate::{Error, Result};
use candle_core::{Device, DeviceLocation};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The device of this name: `cpu`, `cuda`, `cuda:N`, `metal` or `metal:N`. Asked for twice, it is the same device.
///
/// A CUDA device made here has a stream of its own, so that one model serves many threads; candle's `Device::new_cuda` has another
/// stream in each thread, and nothing orders them. It also keeps freed memory for the next pass instead of giving it back to the system.
/// [`Precision`](super::Precision) chooses how exactly it multiplies.
///
/// ```
/// assert!(tadformer::runtime::parse_device("cpu")?.is_cpu());
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// Another name; a device that is not there or that the crate was built without.
pub fn parse_device(name: &str) -> Result<Device> {
    let unknown = || Error::config("device", "cpu, cuda, cuda:N, metal or metal:N", name, "cpu is always there");
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let index: usize = index.parse().map_err(|_| unknown())?;
    let opened = match kind {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => once("cuda", index, cuda),
        "metal" => once("metal", index, Device::new_metal),
        _ => return Err(unknown()),
    };
    opened.map_err(|e| {
        let cure = format!("build with `--features {kind}` on a machine that has one, or use cpu");
        Error::config("device", format!("a {kind} device that works"), e, cure)
    })
}

/// The device that was opened under this name before, or a new one: candle takes two CUDA devices of one GPU for one, and their
/// streams would not wait for each other; of Metal it refuses to mix two.
fn once(
    kind: &'static str,
    index: usize,
    open: impl FnOnce(usize) -> candle_core::Result<Device>,
) -> candle_core::Result<Device> {
    static OPENED: Mutex<BTreeMap<(&str, usize), Device>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&(kind, index)) {
        return Ok(device.clone());
    }
    let device = open(index)?;
    opened.insert((kind, index), device.clone());
    Ok(device)
}

#[cfg(feature = "cuda")]
use super::cuda::device as cuda;

/// Candle's word for a device that the crate was built without.
#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> candle_core::Result<Device> {
    Device::new_cuda(ordinal)
}

/// A device's name, as [`parse_device`] takes it.
///
/// ```
/// use tadformer::candle_core::Device;
/// assert_eq!(tadformer::runtime::device_name(&Device::Cpu), "cpu");
/// ```
pub fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

/// The most bytes that tensors of a device have taken at once, where it tells: CUDA devices do.
///
/// ```
/// use tadformer::candle_core::Device;
/// assert_eq!(tadformer::runtime::peak_device_memory(&Device::Cpu)?, None);
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// A driver that does not answer.
pub fn peak_device_memory(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => Ok(super::cuda::peak_memory(cuda)?),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Two streams of one GPU would not wait for each other.
    #[test]
    fn a_device_is_opened_once_and_what_failed_is_tried_again() {
        let tries = Cell::new(0);
        let open = |works: bool| {
            once("test", 3, |_| {
                tries.set(tries.get() + 1);
                if works { Ok(Device::Cpu) } else { candle_core::bail!("not there") }
            })
        };
        assert!(open(false).is_err() && open(true).is_ok() && open(true).is_ok() && open(false).is_ok());
        assert_eq!(tries.get(), 2);
    }

    #[test]
    fn unknown_and_absent_devices_are_told_what_to_do() {
        for (name, word) in [("gpu", "cuda:N"), ("cuda:x", "cuda:N")] {
            assert!(parse_device(name).unwrap_err().to_string().contains(word));
        }
        #[cfg(not(feature = "cuda"))]
        assert!(parse_device("cuda").unwrap_err().to_string().contains("--features cuda"));
    }
}
