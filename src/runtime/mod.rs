//! What a program settles once: its device and how exactly that multiplies, how freed memory is kept, which threads compute.

#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod memory;
mod precision;
mod threads;

pub use device::{device_name, parse_device, peak_device_memory};
pub use memory::keep_freed_memory;
pub use precision::Precision;
pub use threads::{compute_on_this_thread, most_threads};
