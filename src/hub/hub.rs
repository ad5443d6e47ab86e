//! Where models come from and where they are kept.

use super::address::Endpoint;
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

/// A longer patience is cut to this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) type Report = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

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
    pub(super) endpoint: Endpoint,
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    pub(super) lookup: Lookup,
    pub(super) patience: Duration,
    /// Bytes a second.
    pub(super) least_speed: u64,
    pub(super) certificates: Option<PathBuf>,
    pub(super) report: Option<Report>,
}

/// When the hub is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// For what the cache does not hold.
    Missing,
    /// For what the cache does not hold, and where a branch stands now.
    Newest,
    /// Never.
    Offline,
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
    /// Another process that downloads the same file is waited for as long as it gets on, and given up when it has stood still for five
    /// times as long as this.
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

    /// Has `report` told how far a download is, by the thread that downloads, many times a second.
    pub fn progress(mut self, report: impl Fn(Progress<'_>) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }
}
