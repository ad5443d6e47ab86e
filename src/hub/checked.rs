//! Blobs against the digests that they are called by, once in a process for each state of a file.

use super::{content, regular};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Whether a file's content is what `digest` says; a file that is gone has none.
pub(super) fn is_called(path: &Path, digest: &str) -> Result<bool> {
    let Some(file) = regular::open(path)? else { return Ok(false) };
    let state = State::of(&file, path)?;
    let asked = (path.to_owned(), digest.to_owned());
    let found = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if found().get(&asked) == Some(&state) {
        return Ok(true);
    }
    let is_called = content::is_called(&file, state.len, digest).map_err(Error::io(path, "read"))?;
    // What was written to meanwhile is compared again the next time.
    if is_called && State::of(&file, path)? == state {
        found().insert(asked, state);
    }
    Ok(is_called)
}

/// The files that were found to be what their names say.
static FOUND: Mutex<BTreeMap<(PathBuf, String), State>> = Mutex::new(BTreeMap::new());

/// What changes with a file: every write sets its times, and another file in its place has a number of its own.
#[derive(PartialEq)]
struct State {
    len: u64,
    modified: Option<std::time::SystemTime>,
    inode: Inode,
}

impl State {
    fn of(file: &File, path: &Path) -> Result<Self> {
        let found = file.metadata().map_err(Error::io(path, "read"))?;
        Ok(Self { len: found.len(), modified: found.modified().ok(), inode: inode(&found) })
    }
}

/// Device, number, and the time of the last change, which no program can set back.
#[cfg(unix)]
type Inode = (u64, u64, i64, i64);

#[cfg(unix)]
fn inode(found: &Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino(), found.ctime(), found.ctime_nsec())
}

#[cfg(not(unix))]
type Inode = ();

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Inode {}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_that_changes_after_it_was_checked_is_checked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ABC);
        std::fs::write(&path, "abc").unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        assert!(is_called(&path, ABC).unwrap());
        assert!(is_called(&path, ABC).unwrap());
        // Clocks of file systems tick every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&path, "abd").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(cfg!(not(unix)) || !is_called(&path, ABC).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_called(&path, ABC).unwrap());
    }
}
