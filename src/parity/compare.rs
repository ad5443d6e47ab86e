//! Every golden file of a folder, compared.

use super::golden::Golden;
use super::row::Row;
#[cfg(feature = "data")]
use super::sets;
use super::{edges, figures, swin, tadformer};
use crate::Result;
use candle_core::{DType, Device};
use std::path::Path;

/// Compares the crate with a golden file or folder, computing in `dtype` on `device`.
///
/// # Errors
/// A path that cannot be read or is no golden file.
pub fn compare(path: impl AsRef<Path>, dtype: DType, device: &Device) -> Result<Vec<Row>> {
    let path = path.as_ref();
    #[cfg(feature = "data")]
    if sets::is_set(path) {
        return sets::compare(path);
    }
    if path.is_dir() {
        return swin::compare(path, dtype, device);
    }
    let golden = Golden::open(path)?;
    match golden.tensors.metadata("kind") {
        Some("tadformer") => tadformer::compare(&golden, dtype, device),
        Some("metrics") => figures::compare(&golden, device),
        None if golden.tensors.metadata(edges::MARK).is_some() => edges::compare(&golden),
        #[cfg(feature = "data")]
        None if golden.tensors.metadata("cases").is_some() => super::transforms::compare(&golden),
        _ => Err(golden.foreign("metadata without a known `kind`")),
    }
}
