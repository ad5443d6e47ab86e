//! Models of the Hugging Face hub by their id, and what is cached of them.
//!
//! ```no_run
//! use tadformer::hub::Hub;
//! let model = Hub::default().model("microsoft/swin-tiny-patch4-window7-224")?;
//! println!("{} at commit {}", model.file("config.json")?.display(), model.commit());
//! # Ok::<(), tadformer::Error>(())
//! ```
//!
//! The cache is the one that the hub's Python tools fill and read: `models--OWNER--NAME/{blobs,refs,snapshots}` and `.locks`. What it
//! holds is used without asking the hub. What is downloaded is checked against the object id that the hub lists for it before any
//! reader can find it; a download that was cut goes on where it stopped, in this process or the next, and one process downloads
//! while others wait for it.

mod cache;
mod environment;
mod fetch;
mod id;

pub use id::ModelId;

use crate::error::HubProblem;
use crate::{Error, Result};
use cache::ModelCache;
use fetch::Session;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The file's name in the model.
    pub file: &'a str,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

type Report = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

/// Where models come from and where they are kept.
///
/// [`Hub::default`] is what the environment says, by the variables of the hub's own tools:
///
/// | what | from | else |
/// | --- | --- | --- |
/// | endpoint | `HF_ENDPOINT` | `https://huggingface.co` |
/// | cache folder | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`/hub, `XDG_CACHE_HOME`/huggingface/hub | `~/.cache/huggingface/hub` |
/// | token | `HF_TOKEN`, the file `HF_TOKEN_PATH`, the file `HF_HOME`/token | none |
/// | offline | `HF_HUB_OFFLINE` is 1, on, yes or true | no |
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    lookup: Lookup,
    patience: Duration,
    report: Option<Report>,
}

/// When the hub is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    /// For what the cache does not hold.
    Missing,
    /// For what the cache does not hold, and where a branch stands now.
    Newest,
    /// Never.
    Offline,
}

impl Default for Hub {
    fn default() -> Self {
        environment::hub(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        let mut hub = f.debug_struct("Hub");
        hub.field("endpoint", &self.endpoint).field("cache", &self.cache).field("lookup", &self.lookup);
        hub.finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub by its address, with its cache, and nothing from the environment: no token, and not offline.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        environment::hub(|_| None).endpoint(endpoint).cache(cache).token("")
    }

    /// Another hub: the start of its addresses, such as `https://huggingface.co`.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into().trim_end_matches('/').to_owned();
        self
    }

    /// Another cache folder.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = folder.into();
        self
    }

    /// The token of an account, for private and gated models; an empty one is none. It is sent to the endpoint alone.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into().trim().to_owned()).filter(|token| !token.is_empty());
        self
    }

    /// Asks nothing of the network, ever.
    pub fn offline(mut self) -> Self {
        self.lookup = Lookup::Offline;
        self
    }

    /// Asks where a branch stands now, even where the cache holds an earlier state of it.
    pub fn newest(mut self) -> Self {
        self.lookup = Lookup::Newest;
        self
    }

    /// The longest silence before the hub counts as not answering; 20 seconds by default.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Is told how far a download is, from a thread of its own, many times a second.
    pub fn progress(mut self, report: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// A model at the commit that its id means: `OWNER/NAME`, or `OWNER/NAME@REVISION` with a branch, tag or commit.
    ///
    /// # Errors
    /// An id that is none; a model or revision that the hub does not have or does not give; a hub that does not answer.
    pub fn model(&self, id: &str) -> Result<HubModel> {
        let id: ModelId = id.parse()?;
        let cache = ModelCache::new(&self.cache, id.name());
        let held = match self.lookup {
            Lookup::Newest => id.commit(),
            Lookup::Missing | Lookup::Offline => id.commit().or_else(|| cache.commit_of(id.revision())),
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
            return Err(problem(id, HubProblem::Offline { cache: cache.holds(&self.cache) }));
        }
        Session::open(self, id, cache)
    }
}

/// A model at one commit.
#[derive(Clone, Debug)]
pub struct HubModel {
    hub: Hub,
    id: ModelId,
    commit: String,
    cache: ModelCache,
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
    /// A name that leaves the model's folder; a file that the model does not have; a download that fails or comes damaged.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        self.first_of(&[name], u64::MAX)?.ok_or_else(|| self.missing(&[name]))
    }

    /// The first of these files that the cache holds, else the first that the model has; `None` where it has none of them.
    pub(crate) fn first_of(&self, names: &[&str], most: u64) -> Result<Option<PathBuf>> {
        names.iter().try_for_each(|name| id::check_file(name))?;
        if let Some(path) = names.iter().find_map(|name| self.cache.file(&self.commit, name)) {
            return Ok(Some(path));
        }
        if names.iter().all(|name| self.cache.lacks(&self.commit, name)) {
            return Ok(None);
        }
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
        let _lock = self.cache.lock(&file.oid)?; // until this function returns
        let blob = match self.cache.blob_of(file) {
            Some(blob) => blob,
            None => self.download(session, file)?,
        };
        self.cache.link(&self.commit, &file.name, &blob)
    }

    /// Downloads a file to its name among the blobs. What an earlier process left is doubted first where the whole is damaged.
    fn download(&self, session: &Session, file: &Listed) -> Result<PathBuf> {
        let mut partial = self.cache.partial(file)?;
        let left = partial.len() > 0;
        session.download(&self.commit, file, &mut partial)?;
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

/// A file as the hub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    size: u64,
    /// Git's id of the file, or of the pointer that stands for it in git.
    oid: String,
}

fn problem(id: &ModelId, problem: HubProblem) -> Error {
    Error::Hub { id: id.to_string(), problem }
}
