//! A model at one commit, and its files.

use super::cache::{InCache, ModelCache};
use super::fetch::Session;
use super::hub::{Hub, Lookup};
use super::id::{self, ModelId};
use super::listed::{Listed, damaged, problem};
use super::lock::Taken;
use crate::error::HubProblem;
use crate::{Error, Result};
use std::path::PathBuf;

/// A model at one commit.
#[derive(Clone, Debug)]
pub struct HubModel {
    hub: Hub,
    id: ModelId,
    commit: String,
    cache: ModelCache,
}

impl Hub {
    /// A model at the commit that its id means: `OWNER/NAME`, or `OWNER/NAME@REVISION` with a branch, tag or commit.
    ///
    /// # Errors
    /// An id that is none; a model or revision that the hub does not have or does not give; a hub that does not answer.
    pub fn model(&self, id: &str) -> Result<HubModel> {
        let id: ModelId = id.parse()?;
        let cache = ModelCache::new(&self.cache, id.name());
        let held = match (id.commit(), self.lookup) {
            (None, Lookup::Newest) => None,
            (None, Lookup::Missing | Lookup::Offline) => cache.commit_of(id.revision())?,
            (commit, _) => commit,
        };
        let commit = match held {
            Some(commit) => commit,
            None => {
                let commit = self.session(&id, &cache)?.commit()?;
                cache.set_commit_of(id.revision(), &commit)?;
                commit
            }
        };
        Ok(HubModel { hub: self.clone(), id, commit, cache })
    }

    fn session(&self, id: &ModelId, cache: &ModelCache) -> Result<Session> {
        if self.lookup == Lookup::Offline {
            return Err(problem(id, HubProblem::Offline { cache: cache.holds() }));
        }
        Session::open(self, id, cache)
    }
}

impl HubModel {
    /// Its id.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// The commit, forty hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// One of its files, from the cache or else downloaded.
    ///
    /// # Errors
    /// A name that leaves the model's folder; a file that the model does not have; a download that fails, dribbles or comes damaged;
    /// another process that holds the file and does not get on; in the cache what was changed, where the hub cannot be asked, and
    /// what is no file or leads elsewhere.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.first_of(&[name], u64::MAX)?.ok_or_else(|| self.missing(&[name]))
    }

    /// The first of these files that the cache holds, else the first that the model has; `None` where it has none of them.
    pub(crate) fn first_of(&self, names: &[&str], most: u64) -> Result<Option<PathBuf>> {
        names.iter().try_for_each(|name| id::check_file(name))?;
        match self.held(names)? {
            InCache::Whole(path) => Ok(Some(path)),
            InCache::Damaged(path) => {
                tracing::warn!(path = %path.display(), "not what its digest says: it is downloaded anew");
                self.ask(names, most).map_err(|e| damaged(&path, &e))
            }
            InCache::Nothing if names.iter().all(|name| self.cache.lacks(&self.commit, name)) => Ok(None),
            InCache::Nothing => self.ask(names, most),
        }
    }

    /// What the cache holds of the first of these files that it knows.
    fn held(&self, names: &[&str]) -> Result<InCache> {
        for name in names {
            match self.cache.file(&self.commit, name)? {
                InCache::Nothing => {}
                held => return Ok(held),
            }
        }
        Ok(InCache::Nothing)
    }

    /// The first of these files that the model has, asked of the hub.
    fn ask(&self, names: &[&str], most: u64) -> Result<Option<PathBuf>> {
        let session = self.hub.session(&self.id, &self.cache)?;
        let listed = session.list(&self.commit, names)?;
        let Some(file) = names.iter().find_map(|name| listed.iter().find(|file| file.name == **name)) else {
            names.iter().try_for_each(|name| self.cache.set_lacking(&self.commit, name))?;
            return Ok(None);
        };
        if file.size > most {
            let too_large = HubProblem::TooLarge { file: file.name.clone(), size: file.size, most };
            return Err(problem(&self.id, too_large));
        }
        self.obtain(&session, file).map(Some)
    }

    pub(crate) fn missing(&self, names: &[&str]) -> Error {
        problem(&self.id, HubProblem::NoSuchFile { files: names.join(" or "), commit: self.commit.clone() })
    }

    /// Downloads a file that the hub lists, unless another process did or another commit has it.
    fn obtain(&self, session: &Session, file: &Listed) -> Result<PathBuf> {
        // A holder that downloads gives up within four times our patience, where it has the same.
        let _lock = match self.cache.lock(file, self.hub.patience.saturating_mul(5))? {
            Taken::ByAnother(held) => return Err(problem(&self.id, held)),
            lock => lock, // until this function returns
        };
        let blob = match self.cache.blob_of(file)? {
            Some(blob) => blob,
            None => self.download(session, file)?,
        };
        self.cache.link(&self.commit, &file.name, &blob)
    }

    /// Downloads a file to its name among the blobs. What an earlier process left is doubted first where the whole is damaged.
    fn download(&self, session: &Session, file: &Listed) -> Result<PathBuf> {
        let mut partial = self.cache.partial(file)?;
        let left = partial.len() > 0;
        if let Err(error) = session.download(&self.commit, file, &mut partial) {
            partial.leave()?;
            return Err(error);
        }
        if left && partial.digest_name().is_none() {
            partial.restart()?;
            session.download(&self.commit, file, &mut partial)?;
        }
        match partial.digest_name() {
            Some(name) => partial.keep(&name),
            None => {
                partial.remove()?;
                let found = format!("its content is not that of the object {} that the hub lists", file.oid);
                Err(problem(&self.id, HubProblem::Damaged { file: file.name.clone(), problem: found }))
            }
        }
    }
}
