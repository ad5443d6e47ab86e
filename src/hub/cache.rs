//! The cache folder, in the layout of the hub's Python tools.
//!
//! | path | holds |
//! | --- | --- |
//! | `models--OWNER--NAME/blobs/DIGEST` | a file's content; its SHA-256, or git's id for what git holds itself |
//! | `models--OWNER--NAME/blobs/OID.incomplete` | what came of a download so far |
//! | `models--OWNER--NAME/refs/REVISION` | the commit of a branch or tag |
//! | `models--OWNER--NAME/snapshots/COMMIT/FILE` | a link to the content |
//! | `models--OWNER--NAME/.no_exist/COMMIT/FILE` | nothing: the commit has no such file |
//! | `.locks/models--OWNER--NAME/OID.lock` | locked by the process that downloads |

use super::Listed;
use super::id::is_commit;
use crate::files::{create_folder, write_atomically};
use crate::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One model's part of the cache.
#[derive(Clone, Debug)]
pub(super) struct ModelCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// The commit that a branch or tag had when it was last asked for.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.folder.join("refs").join(revision)).ok()?.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        path.parent().map_or(Ok(()), create_folder)?;
        write_atomically(&path, |file| file.write_all(commit.as_bytes()))
    }

    /// A file of a commit, where it is whole.
    pub(super) fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(name)).filter(|path| path.is_file())
    }

    /// Whether the hub said that a commit has no such file.
    pub(super) fn lacks(&self, commit: &str, name: &str) -> bool {
        self.folder.join(".no_exist").join(commit).join(name).is_file()
    }

    pub(super) fn set_lacking(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.folder.join(".no_exist").join(commit).join(name);
        path.parent().map_or(Ok(()), create_folder)?;
        write_atomically(&path, |_| Ok(()))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Waits until no other process downloads this file; a process that ends gives its lock back, however it ends.
    pub(super) fn lock(&self, oid: &str) -> Result<File> {
        create_folder(&self.locks)?;
        let path = self.locks.join(format!("{oid}.lock"));
        let file = File::options().create(true).append(true).open(&path).map_err(Error::io(&path, "create"))?;
        match file.lock() {
            // Some network drives have no locks; the digest then finds what two writers made of one file.
            Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
            result => result.map(|()| file).map_err(Error::io(&path, "lock")),
        }
    }

    /// The content of a listed file, where this or another commit brought it: a blob's name and length tell.
    pub(super) fn blob_of(&self, file: &Listed) -> Option<PathBuf> {
        let blobs = self.folder.join("blobs");
        let plain = blobs.join(&file.oid);
        if plain.metadata().is_ok_and(|found| found.len() == file.size) {
            return Some(plain);
        }
        let is_it = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let size = path.metadata().map_or(0, |found| found.len());
            size == file.size && name.len() == 64 && pointer_oid(name, size) == file.oid
        };
        std::fs::read_dir(blobs).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(is_it)
    }

    /// What an earlier download of this file left, or nothing.
    pub(super) fn partial(&self, file: &Listed) -> Result<Partial> {
        let blobs = self.folder.join("blobs");
        create_folder(&blobs)?;
        Partial::open(blobs.join(format!("{}.incomplete", file.oid)), file.clone())
    }

    /// Puts a blob under its name in a commit.
    pub(super) fn link(&self, commit: &str, name: &str, blob: &Path) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let folder = path.parent().unwrap_or(&path);
        create_folder(folder)?;
        let content = blob.file_name().unwrap_or_default();
        let up: PathBuf = (0..name.split('/').count() + 1).map(|_| "..").collect();
        // A link cannot be replaced in one step: it is made under a name of its own and renamed.
        let temporary =
            tempfile::Builder::new().prefix(".link-").tempdir_in(folder).map_err(Error::io(folder, "create"))?;
        let made = temporary.path().join("link");
        let made_link =
            symlink(&up.join("blobs").join(content), &made).or_else(|_| std::fs::copy(blob, &made).map(|_| ()));
        made_link.and_then(|()| std::fs::rename(&made, &path)).map_err(Error::io(&path, "create"))?;
        Ok(path)
    }

    /// What there is of this model in the cache, else which models there are, in words.
    pub(super) fn holds(&self, cache: &Path) -> String {
        let mut commits = names_in(&self.folder.join("snapshots"));
        commits.retain(|commit| is_commit(commit));
        if !commits.is_empty() {
            let of = |commit: &String| {
                let mut files = names_in(&self.snapshot(commit));
                files.retain(|file| !file.starts_with('.'));
                format!("{commit} with {}", listed(&files))
            };
            let commits: Vec<String> = commits.iter().take(3).map(of).collect();
            return format!("of this model the cache {} holds {}", cache.display(), commits.join("; "));
        }
        let models = names_in(cache);
        let models: Vec<String> =
            models.iter().filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1))).collect();
        match models.is_empty() {
            true => format!("the cache {} holds no model", cache.display()),
            false => format!("the cache {} holds {}", cache.display(), listed(&models)),
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Elsewhere links take privileges, and the content is copied.
#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(5);
    let shown = names[..names.len() - more].join(", ");
    match more {
        0 if names.is_empty() => "nothing".to_owned(),
        0 => shown,
        _ => format!("{shown} and {more} more"),
    }
}

/// A download in progress, its digests made as it comes.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    listed: Listed,
    len: u64,
    sha256: Sha256,
    content: Sha1,
}

impl Partial {
    /// Goes on after what lies there.
    fn open(path: PathBuf, listed: Listed) -> Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(Error::io(&path, "create"))?;
        let content = blob_header(listed.size);
        let mut partial = Self { path, file, listed, len: 0, sha256: Sha256::new(), content };
        let mut buffer = vec![0; 1 << 16];
        loop {
            match partial.file.read(&mut buffer).map_err(Error::io(&partial.path, "read"))? {
                0 => return Ok(partial),
                read => partial.digest(&buffer[..read]),
            }
            if partial.len > partial.listed.size {
                partial.restart()?;
                return Ok(partial);
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes are still to come.
    pub(super) fn lacks(&self) -> u64 {
        self.listed.size - self.len
    }

    /// Throws away what came.
    pub(super) fn restart(&mut self) -> Result<()> {
        (self.len, self.sha256, self.content) = (0, Sha256::new(), blob_header(self.listed.size));
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(Error::io(&self.path, "write"))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        self.digest(bytes);
        Ok(())
    }

    fn digest(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.sha256.update(bytes);
        self.content.update(bytes);
    }

    /// What the content is called among the blobs; `None` where it is not what the hub listed.
    pub(super) fn digest_name(&self) -> Option<String> {
        let oid = &self.listed.oid;
        let (content, sha256) = (hex(&self.content.clone().finalize()), hex(&self.sha256.clone().finalize()));
        let of_pointer = || (pointer_oid(&sha256, self.len) == *oid).then(|| sha256.clone());
        if content == *oid { Some(content) } else { of_pointer() }
    }

    /// Gives the content its name.
    pub(super) fn keep(self, name: &str) -> Result<PathBuf> {
        self.file.sync_all().map_err(Error::io(&self.path, "sync"))?;
        let blob = self.path.with_file_name(name);
        std::fs::rename(&self.path, &blob).map_err(Error::io(&blob, "rename into"))?;
        Ok(blob)
    }

    pub(super) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io(&self.path, "remove"))
    }
}

/// Git's id of the pointer that stands for a large file: it fixes the SHA-256 and the size.
fn pointer_oid(sha256: &str, size: u64) -> String {
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n");
    let mut hash = blob_header(pointer.len() as u64);
    hash.update(pointer);
    hex(&hash.finalize())
}

/// The start of git's id of a file.
fn blob_header(size: u64) -> Sha1 {
    Sha1::new_with_prefix(format!("blob {size}\0"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointers_id_is_the_one_that_the_hub_lists() {
        // ggml-tiny.bin of ggerganov/whisper.cpp, as the hub lists it.
        let sha256 = "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21";
        assert_eq!(pointer_oid(sha256, 77_691_713), "d144f735b005ae8cbfa04a49e22fe40faa24dbec");
    }

    #[test]
    fn an_empty_files_id_is_gits() {
        assert_eq!(hex(&blob_header(0).finalize()), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let names: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(listed(&names[..5]), "0, 1, 2, 3, 4");
        assert_eq!(listed(&[]), "nothing");
    }
}
