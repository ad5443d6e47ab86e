//! The cache's own files: regular ones, opened through no link.

use crate::files::name_of;
use crate::{Error, Result};
use std::fs::{File, FileType, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

/// Opens a file of the cache for reading; `None` where there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match open_as(path, File::options().read(true)) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Opens a file of the cache for reading and writing, an empty one where there is none.
pub(super) fn open_or_make(path: &Path) -> Result<File> {
    open_as(path, File::options().create(true).truncate(false).read(true).write(true))
}

/// A link, a folder, a FIFO or a device in a file's place is refused at once, before a byte is read or written.
fn open_as(path: &Path, options: &mut OpenOptions) -> Result<File> {
    follow_nothing(path, options)?;
    let file = options.open(path).map_err(|e| {
        let kind = path.symlink_metadata().map(|found| found.file_type());
        kind.ok().and_then(|kind| refusal(path, kind)).unwrap_or_else(|| Error::io(path, "open")(e))
    })?;
    let kind = file.metadata().map_err(Error::io(path, "read"))?.file_type();
    refusal(path, kind).map_or(Ok(file), Err)
}

/// The system refuses a link in the same step that opens the file, and waits for nobody at a FIFO's other end.
#[cfg(unix)]
fn follow_nothing(_: &Path, options: &mut OpenOptions) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    Ok(())
}

#[cfg(not(unix))]
fn follow_nothing(path: &Path, _: &mut OpenOptions) -> Result<()> {
    let link = path.symlink_metadata().ok().map(|found| found.file_type()).filter(FileType::is_symlink);
    link.and_then(|kind| refusal(path, kind)).map_or(Ok(()), Err)
}

/// What is said of anything but a regular file in the cache.
pub(super) fn refusal(path: &Path, kind: FileType) -> Option<Error> {
    let problem = |found| format!("{found} lies where the cache keeps a file of its own");
    let cure = "remove it: the file is made or downloaded anew";
    (!kind.is_file()).then(|| Error::file(path, problem(name_of(kind)), cure))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fifo(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_by_its_kind_and_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("victim"), "precious").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        fifo(&at("fifo"));
        for opened in [|path: &Path| open(path).map(drop), |path: &Path| open_or_make(path).map(drop)] {
            for (name, kind) in [
                ("link", "a link"),
                ("dangling", "a link"),
                ("folder", "a folder"),
                ("fifo", "a FIFO"),
                ("/dev/null", "a device"),
            ] {
                let message = opened(&at(name)).unwrap_err().to_string();
                assert!(message.contains(&format!("{kind} lies")) && message.contains("remove it"), "{message}");
            }
            assert!(opened(&at("victim")).is_ok());
        }
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"precious");
        assert!(!at("none").exists());
        assert!(open(&at("none")).unwrap().is_none());
    }
}
