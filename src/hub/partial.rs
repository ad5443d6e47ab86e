//! A download in progress: what came, on disk, and its digests, made as it comes.

use super::content::{Digests, each_piece};
use super::listed::Listed;
use super::regular;
use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub(super) struct Partial {
    path: PathBuf,
    file: File,
    listed: Listed,
    digests: Digests,
}

impl Partial {
    /// Goes on after what lies there.
    pub(super) fn open(path: &Path, listed: &Listed) -> Result<Self> {
        let (file, digests) = (regular::open_or_make(path)?, Digests::of_size(listed.size));
        let mut partial = Self { path: path.to_owned(), file, listed: listed.clone(), digests };
        if partial.file.metadata().map_err(Error::io(path, "read"))?.len() > listed.size {
            partial.restart()?;
        }
        let (file, digests) = (&partial.file, &mut partial.digests);
        each_piece(file.take(listed.size), |bytes| digests.update(bytes)).map_err(Error::io(path, "read"))?;
        Ok(partial)
    }

    pub(super) fn len(&self) -> u64 {
        self.digests.len()
    }

    /// How many bytes are still to come.
    pub(super) fn lacks(&self) -> u64 {
        self.listed.size - self.len()
    }

    /// Throws away what came.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.digests = Digests::of_size(self.listed.size);
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(Error::io(&self.path, "write"))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        self.digests.update(bytes);
        Ok(())
    }

    /// What the content is called among the blobs; `None` where it is not what the hub listed.
    pub(super) fn digest_name(&self) -> Option<String> {
        self.digests.name_of(&self.listed.oid)
    }

    /// Gives the content its name, in place of what has that name.
    pub(super) fn keep(self, name: &str) -> Result<PathBuf> {
        self.file.sync_all().map_err(Error::io(&self.path, "sync"))?;
        let blob = self.path.with_file_name(name);
        std::fs::rename(&self.path, &blob).map_err(Error::io(&blob, "rename into"))?;
        Ok(blob)
    }

    /// Leaves what came for the next try, where anything did.
    pub(super) fn leave(self) -> Result<()> {
        if self.len() > 0 { Ok(()) } else { self.remove() }
    }

    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io(&self.path, "remove"))
    }
}
