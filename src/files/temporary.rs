//! Temporary files: locked while they are written, and removed where a killed process left them.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// Temporary files are called so: this, some letters, and [`ENDING`].
const BEGINNING: &str = ".tadformer-";
/// See [`BEGINNING`].
const ENDING: &str = ".tmp";

/// A temporary file that is locked until it is closed; where the file system knows no locks, it is not.
pub(super) fn locked_in(folder: &Path) -> std::io::Result<NamedTempFile> {
    loop {
        let temporary = tempfile::Builder::new().prefix(BEGINNING).suffix(ENDING).tempfile_in(folder)?;
        match temporary.as_file().try_lock() {
            Err(TryLockError::Error(_)) => return Ok(temporary),
            Ok(()) if temporary.path().exists() => return Ok(temporary),
            // Before it was locked, another process took it for a stray.
            Ok(()) | Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// Removes what killed processes left in a folder, the first time that this process writes there: large folders take long to list.
pub(super) fn remove_strays_once(folder: &Path) {
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        remove_strays(folder);
    }
}

/// What cannot be looked at or removed stays: the file that is to be written matters more.
pub(super) fn remove_strays(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(BEGINNING) && name.ends_with(ENDING));
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::options().write(true).open(entry.path()) else { continue };
        // Held until it is removed, or its owner could lock it in between.
        if file.try_lock().is_ok() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
