//! Files that are read: regular ones and nothing else.

use crate::{Error, Result};
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::Read;
use std::path::Path;

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

/// What is no regular file, in words.
#[cfg(unix)]
pub(crate) fn name_of(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_symlink() => "a link",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

/// What is no regular file, in words.
#[cfg(not(unix))]
pub(crate) fn name_of(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_symlink() => "a link",
        () => "a device",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
