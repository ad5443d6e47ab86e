//! A checkpoint's file, opened once: its bytes at any place, read where they are asked for.
//!
//! Nothing is mapped into memory. Of a file that is cut short while it is read, a read says so, where a mapping would end the process;
//! and what is written to it meanwhile changes no slice that somebody holds.

use crate::files::open_regular;
use crate::{Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A regular file that is open for reading.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Opened {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        Ok(Self { path: path.to_owned(), file, length })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file, as it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// A handle of its own on the same file, for a reader that wants one.
    pub(crate) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io(&self.path, "read"))
    }

    /// Fills `bytes` from the place `start` on.
    pub(crate) fn read(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        let end = start.saturating_add(bytes.len() as u64);
        read_at(&self.file, start, bytes).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                let problem = format!("it ends before byte {end}, and held {} when it was opened", self.length);
                Error::file(&self.path, problem, "take another copy; nothing may write to a file while it is read")
            }
            _ => Error::io(&self.path, "read")(e),
        })
    }
}

#[cfg(unix)]
fn read_at(file: &File, start: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut start: u64, mut bytes: &mut [u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, start) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => (start, bytes) = (start + read as u64, &mut bytes[read..]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_while_it_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let file = Opened::open(&path).unwrap();
        let mut bytes = vec![0; 50_000];
        file.read(10, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 50_000]);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(20_000).unwrap();
        let message = file.read(10, &mut bytes).unwrap_err().to_string();
        assert!(message.contains("ends before byte 50010, and held 100000 when it was opened"), "{message}");
    }
}
