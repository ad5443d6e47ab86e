//! The folder that a run writes to: made, tried and held before the first step.

use crate::files::create_folder;
use crate::model::TADFormer;
use crate::params::Role;
use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, repeat};
use std::path::Path;

/// Where a run keeps its best adapter; held as long as this lives.
#[derive(Debug)]
pub(super) struct Output {
    /// Locked; none where the system or the file system knows no locks on folders.
    _folder: Option<File>,
}

impl Output {
    /// Makes the adapter's folder where there is none, holds it against other runs, and tries to write as many bytes as the adapter has.
    pub(super) fn take(adapter: &Path, model: &TADFormer) -> Result<Self> {
        if adapter.is_dir() {
            return Err(Error::file(adapter, "a folder, where the adapter is to be written", "name a file in it"));
        }
        let folder = adapter.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        create_folder(folder)?;
        let held = hold(folder)?;
        try_to_write(folder, adapter_bytes(model)).map_err(Error::io(folder, "write to the folder"))?;
        Ok(Self { _folder: held })
    }
}

#[cfg(unix)]
fn hold(folder: &Path) -> Result<Option<File>> {
    use std::fs::TryLockError;
    let file = File::open(folder).map_err(Error::io(folder, "open the folder"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let cure = "wait for its end, or name a file in another folder: `TrainConfig::adapter`";
            Err(Error::file(folder, "another run writes to this folder", cure))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// A folder cannot be opened everywhere.
#[cfg(not(unix))]
fn hold(_: &Path) -> Result<Option<File>> {
    Ok(None)
}

/// Into a file without a name where the system has such, which nobody sees and a killed process does not leave.
fn try_to_write(folder: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = tempfile::tempfile_in(folder)?;
    std::io::copy(&mut repeat(0).take(bytes), &mut file)?;
    file.sync_all()
}

fn adapter_bytes(model: &TADFormer) -> u64 {
    let entries = model.ledger().entries().into_iter().filter(|entry| !matches!(entry.role, Role::Frozen(_)));
    let bytes = |tensor: &candle_core::Tensor| (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
    entries.map(|entry| bytes(entry.tensor())).sum()
}
