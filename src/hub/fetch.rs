//! Requests to the hub: the one file that names hf-hub.
//!
//! hf-hub makes the addresses, sends the token, follows redirects, asks again after a passing error and reads what the hub lists.
//! Of its own cache nothing is used: it stores an error page as the file, checks neither length nor digest, takes a file's name
//! from a header as it comes, starts each download anew, gives up on a lock after ten seconds, and has neither a time limit nor an
//! offline mode. What is missing stands here and in the modules beside.

use super::cache::{ModelCache, Partial};
use super::id::{is_commit, shown};
use super::{Hub, Listed, ModelId, Progress, problem};
use crate::error::HubProblem;
use crate::{Error, Result};
use futures_core::Stream;
use hf_hub::repository::{RepoTreeEntry, download::HFByteStream};
use hf_hub::{HFClient, HFError, HFRepository, RepoTypeModel};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How often a download that was cut goes on without a byte more.
const ATTEMPTS: usize = 4;

/// One model on one hub.
pub(super) struct Session {
    /// Only taken when the session ends.
    runtime: Option<Runtime>,
    repository: HFRepository<RepoTypeModel>,
    hub: Hub,
    id: ModelId,
    /// What the cache holds, for the messages.
    cached: String,
}

impl Drop for Session {
    /// Without waiting for a name's look-up that takes long, and wherever the caller runs.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a request ended without an answer.
enum Failure {
    /// Nothing came for as long as we wait.
    Silence,
    /// The connection ended before the file did.
    Cut,
    /// The hub or the network refused.
    Hub(HFError),
    /// What came is not what was asked for.
    Mismatch,
    /// The disk refused.
    Local(Error),
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        Self::Hub(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

impl Session {
    pub(super) fn open(hub: &Hub, id: &ModelId, cache: &ModelCache) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::Worker(format!("the hub's client: {e}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
        let client = HFClient::builder()
            .endpoint(&hub.endpoint)
            .cache_enabled(false)
            .retry_max_attempts(3)
            .retry_base_delay(Duration::from_millis(30))
            .user_agent(concat!("tadformer/", env!("CARGO_PKG_VERSION")))
            // Given none it would take the environment's; one that no header can hold is not sent.
            .token(hub.token.as_deref().unwrap_or("\n"));
        let client = client.build().map_err(|e| match e {
            HFError::Url(_) => {
                Error::config("endpoint", "an address such as https://huggingface.co", &hub.endpoint, "see HF_ENDPOINT")
            }
            other => failed(&other),
        })?;
        let (owner, name) = id.parts();
        let repository = client.model(owner, name);
        let cached = cache.holds(&hub.cache);
        Ok(Self { runtime: Some(runtime), repository, hub: hub.clone(), id: id.clone(), cached })
    }

    /// The commit of the revision.
    pub(super) fn commit(&self) -> Result<String> {
        let request = self.repository.info().revision(self.id.revision()).expand(vec!["sha".to_owned()]).send();
        let info = self.wait(self.answer(request)).map_err(|e| self.error(e))?;
        let no_commit = || self.server("names no commit");
        info.sha.map(|sha| sha.to_lowercase()).filter(|sha| is_commit(sha)).ok_or_else(no_commit)
    }

    /// Those of the files that the commit has.
    pub(super) fn list(&self, commit: &str, names: &[&str]) -> Result<Vec<Listed>> {
        let paths = names.iter().map(|name| name.to_string()).collect();
        let request = self.repository.get_paths_info().paths(paths).revision(commit).send();
        let entries = self.wait(self.answer(request)).map_err(|e| self.error(e))?;
        let file = |entry| match entry {
            RepoTreeEntry::File { oid, size, path, .. } => Some(Listed { name: path, size, oid: oid.to_lowercase() }),
            RepoTreeEntry::Directory { .. } => None,
        };
        let listed: Vec<Listed> = entries.into_iter().filter_map(file).collect();
        match listed.iter().find(|file| !is_commit(&file.oid)) {
            Some(file) => Err(self.server(&format!("lists no object for {}", file.name))),
            None => Ok(listed),
        }
    }

    /// Brings what a partial download lacks; one that is cut goes on where it was.
    pub(super) fn download(&self, commit: &str, file: &Listed, partial: &mut Partial) -> Result<()> {
        let (mut failures, mut best) = (0, partial.len());
        while partial.lacks() > 0 {
            let cut = match self.wait(self.stream(commit, file, partial)) {
                Ok(()) => Failure::Cut,
                Err(local @ Failure::Local(_)) => return Err(self.error(local)),
                Err(refusal @ Failure::Hub(HFError::AuthRequired { .. } | HFError::Forbidden { .. })) => {
                    return Err(self.error(refusal));
                }
                Err(Failure::Mismatch) => {
                    partial.restart()?;
                    Failure::Mismatch
                }
                Err(cut) => cut,
            };
            if partial.len() > best {
                (failures, best) = (0, partial.len());
            } else if partial.lacks() > 0 {
                failures += 1;
            }
            if failures == ATTEMPTS {
                return Err(self.error(cut));
            }
        }
        Ok(())
    }

    /// One request for the rest of a file.
    async fn stream(&self, commit: &str, file: &Listed, partial: &mut Partial) -> std::result::Result<(), Failure> {
        let (from, lacks) = (partial.len(), partial.lacks());
        let request = self.repository.download_file_stream().filename(&file.name).revision(commit);
        let request = request.maybe_range((from > 0).then_some(from..file.size)).send();
        let (announced, mut bytes) = self.answer(request).await?;
        // A server that knows no ranges sends the whole file: then the next request asks for it.
        if announced.is_some_and(|announced| announced != lacks) {
            return Err(Failure::Mismatch);
        }
        while let Some(chunk) = self.answer_of(next(&mut bytes)).await? {
            let chunk = chunk?;
            if chunk.len() as u64 > partial.lacks() {
                return Err(Failure::Mismatch);
            }
            partial.write(&chunk)?;
            if let Some(report) = &self.hub.report {
                report(Progress { file: &file.name, done: partial.len(), total: file.size });
            }
        }
        Ok(())
    }

    /// Waits for a request, and no longer than the hub's patience.
    async fn answer<T>(&self, request: impl Future<Output = hf_hub::HFResult<T>>) -> std::result::Result<T, Failure> {
        Ok(self.answer_of(request).await??)
    }

    async fn answer_of<T>(&self, future: impl Future<Output = T>) -> std::result::Result<T, Failure> {
        tokio::time::timeout(self.hub.patience, future).await.map_err(|_| Failure::Silence)
    }

    /// Runs on a thread of its own: the caller's may belong to a runtime already.
    fn wait<T: Send>(
        &self,
        work: impl Future<Output = std::result::Result<T, Failure>> + Send,
    ) -> std::result::Result<T, Failure> {
        let Some(runtime) = &self.runtime else { return Err(Failure::Silence) };
        let panicked = || Failure::Local(Error::Worker("the hub's client panicked".to_owned()));
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join()).unwrap_or_else(|_| Err(panicked()))
    }

    fn error(&self, failure: Failure) -> Error {
        let problem_is = |found: HubProblem| problem(&self.id, found);
        let error = match failure {
            Failure::Local(error) => return error,
            Failure::Silence => return problem_is(self.no_network(format!("silence for {:?}", self.hub.patience))),
            Failure::Cut => return problem_is(self.no_network("the connection was cut, again and again".to_owned())),
            Failure::Mismatch => return self.server("sends a file of another length than it lists"),
            Failure::Hub(error) => error,
        };
        let endpoint = || self.hub.endpoint.clone();
        let context = match &error {
            HFError::Http { context } | HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                Some(context)
            }
            HFError::RepoNotFound { context, .. }
            | HFError::RevisionNotFound { context, .. }
            | HFError::EntryNotFound { context, .. } => context.as_ref(),
            HFError::Request { source, .. } if !is_json(source) => {
                return problem_is(self.no_network(innermost(source)));
            }
            _ => None,
        };
        let status = context.map_or(0, |context| context.status.as_u16());
        let said = context.and_then(|context| context.server_message.as_deref()).map(shown);
        let said_or = |other: &str| said.clone().unwrap_or_else(|| other.to_owned());
        problem_is(match (context.and_then(|context| context.error_code.as_deref()), status) {
            (Some("GatedRepo"), _) => HubProblem::Gated {
                said: said_or("its owner wants terms accepted"),
                page: format!("{}/{}", self.hub.endpoint, self.id.name()),
            },
            (Some("RepoNotFound"), _) => HubProblem::NoSuchModel { endpoint: endpoint() },
            (Some("RevisionNotFound"), _) => HubProblem::NoSuchRevision { revision: self.id.revision().to_owned() },
            // Without a token the hub answers so for models that do not exist; with one, for a token that it does not know.
            (_, 401) if self.hub.token.is_none() => HubProblem::NoSuchModel { endpoint: endpoint() },
            (_, 401) => HubProblem::Unauthorised { said: said_or("the hub does not know the token") },
            (_, 403) => HubProblem::Unauthorised { said: said_or("the hub refuses") },
            _ if matches!(error, HFError::RevisionNotFound { .. }) => {
                HubProblem::NoSuchRevision { revision: self.id.revision().to_owned() }
            }
            (_, 404) => HubProblem::NoSuchModel { endpoint: endpoint() },
            (_, 0) => HubProblem::Server { endpoint: endpoint(), said: shown(&innermost(&error)) },
            _ => {
                HubProblem::Server { endpoint: endpoint(), said: format!("{status} {}", said_or("")).trim().to_owned() }
            }
        })
    }

    fn server(&self, said: &str) -> Error {
        problem(&self.id, HubProblem::Server { endpoint: self.hub.endpoint.clone(), said: said.to_owned() })
    }

    fn no_network(&self, cause: String) -> HubProblem {
        HubProblem::NoNetwork { endpoint: self.hub.endpoint.clone(), cause, cache: self.cached.clone() }
    }
}

/// The next bytes of a stream.
async fn next(bytes: &mut HFByteStream) -> Option<hf_hub::HFResult<impl std::ops::Deref<Target = [u8]>>> {
    poll_fn(|context| Pin::new(&mut *bytes).poll_next(context)).await
}

/// Whether an answer came whole and could not be understood.
fn is_json(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<serde_json::Error>())
}

/// The error that the others were made of: "Connection refused" rather than "error sending request".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().map_or(String::new(), |inner| inner.to_string())
}
