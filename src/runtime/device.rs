//! Devices by name.

use crate::{Error, Result};
use candle_core::Device;

/// The device of this name: `cpu`, `cuda`, `cuda:N`, `metal` or `metal:N`.
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
        "cuda" => Device::new_cuda(index),
        "metal" => Device::new_metal(index),
        _ => return Err(unknown()),
    };
    opened.map_err(|e| {
        let cure = format!("build with `--features {kind}` on a machine that has one, or use cpu");
        Error::config("device", format!("a {kind} device that works"), e, cure)
    })
}

#[cfg(test)]
mod tests {
    use super::parse_device;

    #[test]
    fn unknown_and_absent_devices_are_told_what_to_do() {
        for (name, word) in [("gpu", "cuda:N"), ("cuda:x", "cuda:N")] {
            assert!(parse_device(name).unwrap_err().to_string().contains(word));
        }
        #[cfg(not(feature = "cuda"))]
        assert!(parse_device("cuda").unwrap_err().to_string().contains("--features cuda"));
    }
}
