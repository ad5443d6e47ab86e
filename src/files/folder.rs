//! Folders that are whole or not there.

use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use tempfile::TempDir;

/// Makes a folder as a whole or not at all: `content` fills one of another name beside it, which takes its place at the end.
///
/// A process that is killed meanwhile leaves a folder `.tadformer-*.tmp`.
///
/// # Errors
/// A path under which there is anything but an empty folder; a place that cannot be written to; what `content` fails with.
pub fn write_folder<T>(path: &Path, content: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    if path.symlink_metadata().is_ok() && !is_empty_folder(path) {
        return Err(Error::file(path, "there is something already", "name a folder that is not there yet"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent, "create the folder"))?;
    let temporary = temporary(parent).map_err(Error::io(path, "create"))?;
    let made = content(temporary.path())?;
    if path.exists() {
        std::fs::remove_dir(path).map_err(Error::io(path, "replace"))?;
    }
    std::fs::rename(temporary.path(), path).map_err(Error::io(path, "rename into"))?;
    let _ = temporary.keep();
    Ok(made)
}

/// Writes a file of such a folder, and waits until it is on disk.
///
/// # Errors
/// A file that cannot be written; what `content` fails with.
pub fn write_new(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut writer = BufWriter::new(File::create_new(path).map_err(Error::io(path, "create"))?);
    content(&mut writer).map_err(Error::io(path, "write"))?;
    let file = writer.into_inner().map_err(|e| Error::io(path, "write")(e.into_error()))?;
    file.sync_all().map_err(Error::io(path, "sync"))
}

fn is_empty_folder(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(unix)]
fn temporary(parent: &Path) -> std::io::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    // As any other folder; temporary ones are private.
    let readable = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix(".tadformer-").suffix(".tmp").permissions(readable).tempdir_in(parent)
}

#[cfg(not(unix))]
fn temporary(parent: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix(".tadformer-").suffix(".tmp").tempdir_in(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("new/set");
        let fill = |folder: &Path| write_new(&folder.join("file"), |file| file.write_all(b"whole"));
        let failed = write_folder(&path, |folder| {
            fill(folder)?;
            Err::<(), _>(Error::Worker("half way".into()))
        });
        assert!(failed.unwrap_err().to_string().contains("half way"));
        assert_eq!(std::fs::read_dir(root.path().join("new")).unwrap().count(), 0, "nothing is left");
        write_folder(&path, fill).unwrap();
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"whole");
        assert!(write_folder(&path, fill).unwrap_err().to_string().contains("there is something already"));
        assert_eq!(std::fs::read_dir(root.path().join("new")).unwrap().count(), 1);
        let empty = root.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        write_folder(&empty, fill).unwrap();
        assert!(empty.join("file").exists());
        let file = empty.join("file");
        assert!(write_folder(&file, fill).unwrap_err().to_string().contains("there is something already"));
    }
}
