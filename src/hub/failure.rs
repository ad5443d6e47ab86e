//! How a request ends without what was asked for.

use super::id::shown;
use crate::Error;
use std::time::Duration;

/// What was asked for, or why it did not come.
pub(super) type Outcome<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing came for as long as we wait.
    Silence,
    /// Less came than the least speed makes of that time; what stays of it.
    Slow(String),
    /// The connection ended before the answer did.
    Cut,
    /// There is no way to the server, in the network's words.
    NoWay(String),
    /// The server refused.
    Refused(Refusal),
    /// What came is none of the answers that there are, in words of ours.
    Nonsense(String),
    /// A file of another length than listed.
    OtherLength,
    /// The disk refused.
    Local(Error),
}

/// A server's refusal, in its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The hub's name for the reason.
    pub(super) code: Option<String>,
    pub(super) said: Option<String>,
    /// After how long it wants to be asked again.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    /// Whether the server is there and may answer the next time.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Cut => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 425 | 429 | 500..),
            _ => false,
        }
    }

    /// After how long the server wants to be asked again.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.wait,
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
        use ureq::Error::{ConnectProxyFailed, ConnectionFailed, HostNotFound, Io, Rustls, Timeout, Tls};
        match error {
            Timeout(_) => Self::Silence,
            Io(e) if e.kind() == TimedOut => Self::Silence,
            Io(e) if [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&e.kind()) => Self::Cut,
            Io(e) => Self::NoWay(shown(&e.to_string())),
            e @ (HostNotFound | ConnectionFailed | ConnectProxyFailed(_) | Tls(_) | Rustls(_)) => {
                Self::NoWay(shown(&e.to_string()))
            }
            e => Self::Nonsense(format!("sends what is no answer of HTTP: {}", shown(&e.to_string()))),
        }
    }
}

impl From<std::io::Error> for Failure {
    /// Of a body's reader, which wraps the client's errors.
    fn from(error: std::io::Error) -> Self {
        ureq::Error::from(error).into()
    }
}
