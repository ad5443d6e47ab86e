//! The cache folder, in the layout of the hub's Python tools.
//!
//! | path | holds |
//! | --- | --- |
//! | `models--OWNER--NAME/blobs/DIGEST` | a file's content; its SHA-256, or git's id for what git holds itself |
//! | `models--OWNER--NAME/blobs/OID.incomplete` | what came of a download so far |
//! | `models--OWNER--NAME/refs/REVISION` | the commit of a branch or tag |
//! | `models--OWNER--NAME/snapshots/COMMIT/FILE` | a link to the content, or a copy where there are no links |
//! | `models--OWNER--NAME/.no_exist/COMMIT/FILE` | nothing: the commit has no such file |
//! | `.locks/models--OWNER--NAME/OID.lock` | locked by the process that downloads |

use super::id::is_commit;
use super::listed::Listed;
use super::partial::Partial;
use super::{checked, content, lock, regular};
use crate::files::{create_folder, write_atomically};
use crate::{Error, Result};
use hf_hub::{Cache, Repo};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One model's part of the cache.
#[derive(Clone, Debug)]
pub(super) struct ModelCache {
    cache: PathBuf,
    id: String,
}

/// What the cache holds of a file.
#[derive(Debug, PartialEq)]
pub(super) enum InCache {
    /// All of it, at this path.
    Whole(PathBuf),
    /// Something else than its name says.
    Damaged(PathBuf),
    Nothing,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, id: &str) -> Self {
        Self { cache: cache.to_owned(), id: id.to_owned() }
    }

    fn name(&self) -> String {
        Repo::model(self.id.clone()).folder_name()
    }

    fn folder(&self) -> PathBuf {
        self.cache.join(self.name())
    }

    fn blobs(&self) -> PathBuf {
        self.folder().join("blobs")
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        Cache::new(self.cache.clone()).model(self.id.clone()).pointer_path(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder().join("refs").join(revision)
    }

    fn absence(&self, commit: &str, name: &str) -> PathBuf {
        self.folder().join(".no_exist").join(commit).join(name)
    }

    /// The commit that a branch or tag had when it was last asked for.
    pub(super) fn commit_of(&self, revision: &str) -> Result<Option<String>> {
        let path = self.reference(revision);
        let Some(file) = regular::open(&path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(64).read_to_end(&mut bytes).map_err(Error::io(&path, "read"))?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(Some(text).filter(|commit| is_commit(commit)))
    }

    pub(super) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.reference(revision);
        self.make_folder_of(&path)?;
        write_atomically(&path, |file| file.write_all(commit.as_bytes()))
    }

    /// A file of a commit, its content compared with its digest where a digest is known.
    pub(super) fn file(&self, commit: &str, name: &str) -> Result<InCache> {
        let path = self.snapshot(commit).join(name);
        let Some(content) = self.content_of(&path)? else { return Ok(InCache::Nothing) };
        let digests = self.digests_of(&content);
        // A copy without a blob of its own can be compared with nothing.
        let whole = digests.is_empty() || any(&digests, |digest| checked::is_called(&content, digest))?;
        Ok(if whole { InCache::Whole(path) } else { InCache::Damaged(path) })
    }

    /// The file that an entry of a snapshot is or links to, which lies in this model's part of the cache.
    fn content_of(&self, entry: &Path) -> Result<Option<PathBuf>> {
        let resolved = |path: &Path| match path.canonicalize() {
            Ok(resolved) => Ok(Some(resolved)),
            Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
            Err(e) => Err(Error::io(path, "resolve")(e)),
        };
        let (Some(content), Some(folder)) = (resolved(entry)?, resolved(&self.folder())?) else { return Ok(None) };
        if !content.starts_with(folder) {
            let problem = format!("a link out of this model's part of the cache, to {}", content.display());
            return Err(Error::file(entry, problem, "remove it: the file is downloaded anew"));
        }
        let kind = content.symlink_metadata().map_err(Error::io(&content, "read"))?.file_type();
        regular::refusal(&content, kind).map_or(Ok(Some(content)), Err)
    }

    /// Makes the folder that a path of this model is in.
    fn make_folder_of<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        let folder = path.parent().unwrap_or(path);
        make_folder_inside(&self.folder(), folder)?;
        Ok(folder)
    }

    /// The digests that content may have: a blob's is its name, and a copy's that of a blob as long as it.
    fn digests_of(&self, content: &Path) -> Vec<String> {
        let blobs = self.blobs();
        let is_blob = blobs.canonicalize().is_ok_and(|blobs| content.parent() == Some(&blobs));
        let name = content.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let len = regular_len(content);
        let may_be = |other: &String| if is_blob { other == name } else { regular_len(&blobs.join(other)) == len };
        names_in(&blobs).into_iter().filter(|name| content::is_digest(name)).filter(may_be).collect()
    }

    /// Whether the hub said that a commit has no such file.
    pub(super) fn lacks(&self, commit: &str, name: &str) -> bool {
        self.absence(commit, name).is_file()
    }

    pub(super) fn set_lacking(&self, commit: &str, name: &str) -> Result<()> {
        let path = self.absence(commit, name);
        self.make_folder_of(&path)?;
        write_atomically(&path, |_| Ok(()))
    }

    /// Waits until no other process downloads this file, or the one that does has stood still for too long.
    pub(super) fn lock(&self, file: &Listed, patience: Duration) -> Result<lock::Taken> {
        let locks = self.cache.join(".locks").join(self.name());
        make_folder_inside(&self.cache, &locks)?;
        lock::take(&locks.join(format!("{}.lock", file.oid)), &self.download_of(file), patience)
    }

    fn download_of(&self, file: &Listed) -> PathBuf {
        self.blobs().join(format!("{}.incomplete", file.oid))
    }

    /// The content of a listed file, where this or another commit brought it and it is whole.
    pub(super) fn blob_of(&self, file: &Listed) -> Result<Option<PathBuf>> {
        let blobs = self.blobs();
        let is_its = |name: &String| {
            let called =
                *name == file.oid || content::is_digest(name) && content::pointer_id(name, file.size) == file.oid;
            called && regular_len(&blobs.join(name)) == Some(file.size)
        };
        for name in names_in(&blobs).into_iter().filter(is_its) {
            let path = blobs.join(&name);
            if checked::is_called(&path, &name)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What an earlier download of this file left, or nothing.
    pub(super) fn partial(&self, file: &Listed) -> Result<Partial> {
        let path = self.download_of(file);
        self.make_folder_of(&path)?;
        Partial::open(&path, file)
    }

    /// Puts a blob under its name in a commit.
    pub(super) fn link(&self, commit: &str, name: &str, blob: &Path) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let folder = self.make_folder_of(&path)?;
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
    pub(super) fn holds(&self) -> String {
        let cache = &self.cache;
        let mut commits = names_in(&self.folder().join("snapshots"));
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

/// Makes a folder below another one; a link on the way leads nowhere else.
fn make_folder_inside(root: &Path, folder: &Path) -> Result<()> {
    create_folder(root)?;
    let resolved = |path: &Path| path.canonicalize().map_err(Error::io(path, "resolve"));
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(root);
    if !resolved(there)?.starts_with(resolved(root)?) {
        let problem = format!("a link out of {}", root.display());
        return Err(Error::file(there, problem, "remove it, and see who put it there"));
    }
    create_folder(folder)
}

/// The length of a regular file; a link is none.
fn regular_len(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().filter(|found| found.is_file()).map(|found| found.len())
}

/// Whether one of them is so; an error ends the search.
fn any(digests: &[String], is_so: impl Fn(&str) -> Result<bool>) -> Result<bool> {
    digests.iter().try_fold(false, |found, digest| Ok(found || is_so(digest)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let names: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4 and 2 more");
        assert_eq!(listed(&names[..5]), "0, 1, 2, 3, 4");
        assert_eq!(listed(&[]), "nothing");
    }
}
