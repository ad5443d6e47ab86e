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
//! reader can find it, and a blob is compared with the digest that it is called by once in each process; a download that was cut
//! goes on where it stopped, in this process or the next, and one process downloads while others wait for it.
//!
//! A hub is not trusted with anything but the content of its models: every answer is bounded in size and in time, it is followed to
//! `http` and `https` alone, never from the second to the first, and nothing is written outside the cache folder. Proxies are those
//! of `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.

mod address;
mod cache;
mod checked;
mod client;
mod content;
mod environment;
mod failure;
mod fetch;
mod id;
mod lock;
mod pace;
mod partial;
mod regular;
mod reply;
mod tries;

pub use id::ModelId;

use crate::error::HubProblem;
use crate::{Error, Result};
use address::Endpoint;
use cache::{Held, ModelCache};
use fetch::Session;
use lock::Taken;
use std::fmt;
use std::path::{Path, PathBuf};
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

/// A longer patience is cut to this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

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
/// | certificates | the file `SSL_CERT_FILE` | those that Mozilla trusts |
#[derive(Clone)]
pub struct Hub {
    endpoint: Endpoint,
    cache: PathBuf,
    token: Option<String>,
    lookup: Lookup,
    patience: Duration,
    /// Bytes a second.
    least_speed: u64,
    certificates: Option<PathBuf>,
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
        // The token is a secret, and the endpoint keeps its own to itself.
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
    ///
    /// A user's name and password in it (`https://NAME:PASSWORD@mirror`, signs escaped) are sent to it in place of the token, and
    /// never shown.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Endpoint::new(&endpoint.into());
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

    /// The longest silence before the hub counts as not answering; 20 seconds by default, and a day at most.
    ///
    /// Another process that downloads the same file is waited for as long as it gets on; five times as long as this without, and it
    /// is given up.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(LONGEST_PATIENCE);
        self
    }

    /// The bytes a second below which a transfer is given up, on the mean of four times the patience; 1000 by default.
    ///
    /// What came of a file stays, and the next try goes on there.
    pub fn least_speed(mut self, bytes_per_second: u64) -> Self {
        self.least_speed = bytes_per_second;
        self
    }

    /// The certificates that a hub behind `https` is trusted by: a PEM file, in place of those that Mozilla trusts.
    pub fn certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.certificates = Some(file.into());
        self
    }

    /// Is told how far a download is, by the thread that downloads, many times a second.
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
            Held::Whole(path) => Ok(Some(path)),
            Held::Damaged(path) => {
                tracing::warn!(path = %path.display(), "not what its digest says: it is downloaded anew");
                self.ask(names, most).map_err(|e| damaged(&path, &e))
            }
            Held::Nothing if names.iter().all(|name| self.cache.lacks(&self.commit, name)) => Ok(None),
            Held::Nothing => self.ask(names, most),
        }
    }

    /// What the cache holds of the first of these files that it knows.
    fn held(&self, names: &[&str]) -> Result<Held> {
        for name in names {
            match self.cache.file(&self.commit, name)? {
                Held::Nothing => {}
                held => return Ok(held),
            }
        }
        Ok(Held::Nothing)
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

/// A file as the hub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    size: u64,
    /// Git's id of the file, or of the pointer that stands for it in git.
    oid: String,
}

/// A file of the cache that is not what its digest says, and why it cannot be had again.
fn damaged(path: &Path, error: &Error) -> Error {
    let problem = format!("its content is not what its digest says, and it cannot be had again: {error}");
    Error::file(path, problem, "it was changed after it was downloaded: remove it, or let it be downloaded")
}

fn problem(id: &ModelId, problem: HubProblem) -> Error {
    Error::Hub { id: id.to_string(), problem }
}
