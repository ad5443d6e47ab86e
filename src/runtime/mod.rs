//! What a program settles once: its device, how freed memory is kept, which threads compute.

mod device;
mod memory;
mod threads;

pub use device::parse_device;
pub use memory::keep_freed_memory;
pub use threads::{compute_on_this_thread, most_threads};
