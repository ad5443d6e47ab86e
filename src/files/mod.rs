//! Files that are whole or not there, and files that are read: regular ones and nothing else.

#[cfg(feature = "data")]
mod folder;
mod regular;
mod temporary;
mod write;

#[cfg(feature = "data")]
pub(crate) use folder::{write_folder, write_new};
#[cfg(feature = "hub")]
pub(crate) use regular::name_of;
pub use regular::{open_regular, read_start};
pub use write::{create_folder, write_atomically, write_tensors};
