//! Files that are whole or not there: written under a temporary name, synced, renamed.

use super::temporary::{locked_in, remove_strays_once};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `path` as a whole or not at all: an earlier file stays as it was until the new one is complete and on disk.
///
/// A process that is killed meanwhile leaves a temporary file; the next one that writes into the folder removes it. A file that is
/// being written is locked, and never removed.
///
/// # Errors
/// The folder does not exist or cannot be written to, the disk is full, or `content` fails; nothing is left behind then.
pub fn write_atomically(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    remove_strays_once(folder);
    let mut writer = BufWriter::new(locked_in(folder).map_err(Error::io(path, "create"))?);
    content(&mut writer).map_err(Error::io(path, "write"))?;
    let temporary = writer.into_inner().map_err(|e| Error::io(path, "write")(e.into_error()))?;
    make_readable(temporary.as_file()).map_err(Error::io(path, "write"))?;
    temporary.as_file().sync_all().map_err(Error::io(path, "sync"))?;
    temporary.persist(path).map_err(|e| Error::io(path, "rename into")(e.error))?;
    sync_folder(folder).map_err(Error::io(folder, "sync"))
}

/// Writes named tensors as a safetensors file, with one entry of metadata where there is any.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_tensors(path: &Path, tensors: Vec<(String, Tensor)>, metadata: Option<(&str, String)>) -> Result<()> {
    let on_cpu = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.contiguous()?));
    let tensors = tensors.into_iter().map(on_cpu).collect::<Result<Vec<(String, Tensor)>>>()?;
    let metadata = metadata.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    let bytes = safetensors::serialize(tensors, metadata).map_err(|e| Error::file(path, e, "report this as a bug"))?;
    write_atomically(path, |file| file.write_all(&bytes))
}

/// Creates a folder and its parents.
///
/// # Errors
/// A path that runs through a file; a folder that cannot be written to.
pub fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(Error::io(path, "create the folder"))
}

/// Temporary files are private; what they become is as readable as any other file.
#[cfg(unix)]
fn make_readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_: &File) -> std::io::Result<()> {
    Ok(())
}

/// The rename itself is on disk only once the folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::temporary::remove_strays;

    #[test]
    fn a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        write_atomically(&path, |file| file.write_all(b"old")).unwrap();
        let full = |file: &mut dyn Write| {
            file.write_all(&[0; 100_000])?;
            Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "disk full"))
        };
        let message = write_atomically(&path, full).unwrap_err().to_string();
        assert!(message.contains("adapter") && message.contains("disk full"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for path in [folder.path().join("missing/adapter"), file.join("adapter")] {
            let message = write_atomically(&path, |_| Ok(())).unwrap_err().to_string();
            assert!(message.contains("cannot create") && message.contains("adapter"), "{message}");
        }
        assert!(create_folder(&file.join("run")).unwrap_err().to_string().contains("cannot create the folder"));
    }

    /// Twenty of fifty killed runs left a `.tmp` file of megabytes, for ever.
    #[test]
    fn strays_of_killed_processes_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in
            [".tadformer-killed.tmp", ".tadformer-living.tmp", ".tadformer-notes", ".tmpAbCdEf", "of.tadformer-.tmp"]
        {
            std::fs::write(path(name), b"half").unwrap();
        }
        std::fs::create_dir(path(".tadformer-folder.tmp")).unwrap();
        let living = File::open(path(".tadformer-living.tmp")).unwrap();
        living.lock().unwrap();
        write_atomically(&path("adapter"), |file| {
            remove_strays(folder.path()); // as another process would, meanwhile
            file.write_all(b"whole")
        })
        .unwrap();
        assert_eq!(std::fs::read(path("adapter")).unwrap(), b"whole");
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let kept = [
            ".tadformer-folder.tmp",
            ".tadformer-living.tmp",
            ".tadformer-notes",
            ".tmpAbCdEf",
            "adapter",
            "of.tadformer-.tmp",
        ];
        assert_eq!(names, kept);
    }

    #[test]
    fn many_that_write_and_look_for_strays_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let folder = folder.path();
                scope.spawn(move || {
                    for i in 0..50 {
                        remove_strays(folder);
                        let path = folder.join(format!("{writer}-{i}"));
                        write_atomically(&path, |file| file.write_all(b"whole")).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 200);
    }
}
