//! Files that are whole or not there: written under a temporary name, synced, renamed. What is read is a regular file and nothing else.

use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::{BTreeSet, HashMap};
use std::fs::{File, FileType, Metadata, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// Temporary files are called so: this, some letters, and [`ENDING`].
const BEGINNING: &str = ".tadformer-";
/// See [`BEGINNING`].
const ENDING: &str = ".tmp";

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

/// A temporary file that is locked until it is closed; where the file system knows no locks, it is not.
fn locked_in(folder: &Path) -> std::io::Result<NamedTempFile> {
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
fn remove_strays_once(folder: &Path) {
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        remove_strays(folder);
    }
}

/// What cannot be looked at or removed stays: the file that is to be written matters more.
fn remove_strays(folder: &Path) {
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

/// Opens a regular file for reading. What is none is refused at once: a FIFO would wait for its writer, a device may never end.
///
/// ```
/// let message = tadformer::files::open_regular("/".as_ref()).unwrap_err().to_string();
/// assert!(message.contains("a folder, where a file is expected"));
/// ```
///
/// # Errors
/// A path that does not exist or may not be read; a folder, a FIFO, a socket, a device.
pub fn open_regular(path: &Path) -> Result<File> {
    // Before it is opened, since opening alone can set a device off; and after, since by then another may stand in its place.
    check_regular(path, std::fs::metadata(path))?;
    let file = without_waiting().read(true).open(path).map_err(Error::io(path, "read"))?;
    check_regular(path, file.metadata())?;
    Ok(file)
}

/// The start of a regular file, no more than `most` bytes of it whatever it says of its length.
///
/// # Errors
/// As [`open_regular`]; a file that can no longer be read.
pub fn read_start(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    Ok(bytes)
}

fn check_regular(path: &Path, metadata: std::io::Result<Metadata>) -> Result<()> {
    let kind = metadata.map_err(Error::io(path, "read"))?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let cure = if kind.is_dir() { "name a file in it" } else { "write what it gives to a file, and give that" };
    Err(Error::file(path, format!("{}, where a file is expected", name_of(kind)), cure))
}

#[cfg(unix)]
fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn name_of(kind: FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "a device" }
}

/// Even where a FIFO took a file's place, opening it comes back at once; reading a regular file is as ever.
#[cfg(unix)]
fn without_waiting() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK);
    options
}

#[cfg(not(unix))]
fn without_waiting() -> OpenOptions {
    OpenOptions::new()
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

    #[test]
    fn a_regular_file_is_read_to_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"content").unwrap();
        assert_eq!(read_start(&path, 4).unwrap(), b"cont");
        assert_eq!(read_start(&path, 100).unwrap(), b"content");
        assert!(read_start(&folder.path().join("none"), 1).unwrap_err().to_string().contains("cannot read"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_named_by_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        for (target, words) in [
            (folder.path(), "a folder, where a file is expected (name a file in it)"),
            (Path::new("/dev/zero"), "a device, where a file is expected (write what it gives"),
            (&folder.path().join("none"), "cannot read"),
            (&link, "cannot read"), // a link to itself
        ] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            let message = open_regular(&link).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("link"), "{message}");
            std::fs::remove_file(&link).unwrap();
        }
        std::fs::write(folder.path().join("file"), b"").unwrap();
        std::os::unix::fs::symlink(folder.path().join("file"), &link).unwrap();
        assert!(open_regular(&link).is_ok(), "the hub's cache is made of links");
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
}
