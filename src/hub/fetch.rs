//! One model on one hub: what is asked of it, how often, and what is said where it does not come.

use super::address::Address;
use super::cache::ModelCache;
use super::client::{Client, Question};
use super::failure::{Failure, Outcome, Refusal};
use super::hub::{Hub, Progress};
use super::listed::{Listed, problem};
use super::pace::Pace;
use super::partial::Partial;
use super::tries::{MOST_TRIES, Tries};
use super::{ModelId, reply};
use crate::error::HubProblem;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// One model on one hub.
pub(super) struct Session {
    client: Client,
    hub: Hub,
    id: ModelId,
    /// What the cache holds, for the messages.
    cached: String,
}

impl Session {
    pub(super) fn open(hub: &Hub, id: &ModelId, cache: &ModelCache) -> Result<Self> {
        Ok(Self { client: Client::new(hub)?, hub: hub.clone(), id: id.clone(), cached: cache.holds() })
    }

    /// The commit of the revision.
    pub(super) fn commit(&self) -> Result<String> {
        let address = self.hub.endpoint.revision(self.id.name(), self.id.revision())?;
        let json = self.json(&address, &Question::Get)?;
        reply::commit(&json).map_err(|said| self.server(said))
    }

    /// Those of the files that the commit has.
    pub(super) fn list(&self, commit: &str, names: &[&str]) -> Result<Vec<Listed>> {
        let address = self.hub.endpoint.listing(self.id.name(), commit)?;
        let asked = serde_json::json!({ "paths": names, "expand": false }).to_string();
        let json = self.json(&address, &Question::Post(&asked))?;
        reply::listing(&json, names).map_err(|said| self.server(said))
    }

    /// A description, asked for again where that may help.
    pub(super) fn json(&self, address: &Address, question: &Question) -> Result<Vec<u8>> {
        let mut tries = Tries::new(self.hub.patience);
        loop {
            match self.client.json(address, question) {
                Ok(json) => return Ok(json),
                Err(failure) => match tries.failed(failure.wait()).filter(|_| failure.passes()) {
                    Some(wait) => std::thread::sleep(wait),
                    None => return Err(self.error(failure)),
                },
            }
        }
    }

    /// Brings what a partial download lacks; one that is cut goes on where it was.
    pub(super) fn download(&self, commit: &str, file: &Listed, partial: &mut Partial) -> Result<()> {
        let address = self.hub.endpoint.file(self.id.name(), commit, &file.name)?;
        let (mut tries, mut best) = (Tries::new(self.hub.patience), partial.len());
        // Over all tries: a server that sends a byte and hangs up is as slow as one that sends a byte and waits.
        let mut pace = Pace::new(self.hub.least_speed, self.hub.patience.saturating_mul(MOST_TRIES), Instant::now());
        while partial.lacks() > 0 {
            let Err(failure) = self.rest(&address, file, partial, &mut pace) else { continue };
            match failure {
                Failure::OtherLength => partial.restart()?,
                Failure::Silence | Failure::NoWay(_) => {}
                ref passing if passing.passes() => {}
                last => return Err(self.error(last)),
            }
            if partial.len() > best {
                (tries, best) = (Tries::new(self.hub.patience), partial.len());
            }
            match tries.failed(failure.wait()) {
                Some(wait) => std::thread::sleep(wait),
                None => return Err(self.error(failure)),
            }
        }
        Ok(())
    }

    /// One request for the rest of a file.
    fn rest(&self, address: &Address, file: &Listed, partial: &mut Partial, pace: &mut Pace) -> Outcome<()> {
        let from = partial.len();
        let question = if from > 0 { Question::Part(from..file.size) } else { Question::Get };
        let mut reply = match self.client.ask(address, &question) {
            // There is no such part of the file that the server has.
            Err(Failure::Refused(Refusal { status: 416, .. })) => return Err(Failure::OtherLength),
            Err(Failure::Refused(Refusal { status: 404, .. })) => {
                return Err(Failure::Nonsense(format!("404 for {}, which it lists", file.name)));
            }
            reply => reply?,
        };
        match reply.part() {
            Some(part) if part != (from, file.size) => return Err(Failure::OtherLength),
            Some(_) => {}
            // A server that knows no parts sends the whole.
            None if from > 0 => partial.restart()?,
            None => {}
        }
        if reply.length().is_some_and(|announced| announced != partial.lacks()) {
            return Err(Failure::OtherLength);
        }
        let mut piece = vec![0; 1 << 17];
        while partial.lacks() > 0 {
            // No byte more than the file has.
            let most = partial.lacks().min(piece.len() as u64) as usize;
            let read = reply.read(&mut piece[..most])?;
            if read == 0 {
                return Err(Failure::Cut);
            }
            partial.write(&piece[..read])?;
            if let Some(report) = &self.hub.report {
                report(Progress { file: &file.name, done: partial.len(), total: file.size });
            }
            if !pace.keeps_up(read, Instant::now()) && partial.lacks() > 0 {
                let (name, done, total) = (&file.name, partial.len(), file.size);
                return Err(Failure::Slow(format!("{done} of {total} bytes of {name} are kept for the next try")));
            }
        }
        Ok(())
    }

    fn error(&self, failure: Failure) -> Error {
        let endpoint = || self.hub.endpoint.to_string();
        let no_network = |cause| HubProblem::NoNetwork { endpoint: endpoint(), cause, cache: self.cached.clone() };
        let found = match failure {
            Failure::Local(error) => return error,
            Failure::Silence => no_network(format!("silence for {:?}", self.hub.patience)),
            Failure::Cut => no_network("the connection was cut, again and again".to_owned()),
            Failure::NoWay(cause) => no_network(cause),
            Failure::Slow(kept) => HubProblem::Slow { endpoint: endpoint(), least: self.hub.least_speed, kept },
            Failure::OtherLength => return self.server("sends a file of another length than it lists".to_owned()),
            Failure::Nonsense(said) => return self.server(said),
            Failure::Refused(refusal) => self.refused(refusal),
        };
        problem(&self.id, found)
    }

    /// What a refusal means.
    fn refused(&self, refusal: Refusal) -> HubProblem {
        let endpoint = self.hub.endpoint.to_string();
        let said_or = |other: &str| refusal.said.clone().unwrap_or_else(|| other.to_owned());
        match (refusal.code.as_deref(), refusal.status) {
            (Some("GatedRepo"), _) => HubProblem::Gated {
                said: said_or("its owner wants terms accepted"),
                page: format!("{endpoint}/{}", self.id.name()),
            },
            (Some("RepoNotFound"), _) => HubProblem::NoSuchModel { endpoint },
            (Some("RevisionNotFound"), _) => HubProblem::NoSuchRevision { revision: self.id.revision().to_owned() },
            // Without a token the hub answers so for models that do not exist; with one, for a token that it does not know.
            (_, 401) if self.hub.token.is_none() => HubProblem::NoSuchModel { endpoint },
            (_, 401) => HubProblem::Unauthorised { said: said_or("the hub does not know the token") },
            (_, 403) => HubProblem::Unauthorised { said: said_or("the hub refuses") },
            (None, 404) => HubProblem::NoSuchModel { endpoint },
            (_, status) => {
                let said = format!("{status} {}", said_or("")).trim().to_owned();
                HubProblem::Server { endpoint, said: said + &wait(refusal.wait) }
            }
        }
    }

    fn server(&self, said: String) -> Error {
        problem(&self.id, HubProblem::Server { endpoint: self.hub.endpoint.to_string(), said })
    }
}

/// After how long a server wants to be asked again, in words.
fn wait(wanted: Option<Duration>) -> String {
    wanted.map_or(String::new(), |wait| format!(", and wants to be asked again after {} seconds", wait.as_secs()))
}
