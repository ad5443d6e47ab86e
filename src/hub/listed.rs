//! A file as the hub lists it, and what is said of one that cannot be had.

use super::id::ModelId;
use crate::Error;
use crate::error::HubProblem;
use std::path::Path;

/// A file as the hub lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) size: u64,
    /// Git's id of the file, or of the pointer that stands for it in git.
    pub(super) oid: String,
}

/// A file of the cache that is not what its digest says, and why it cannot be had again.
pub(super) fn damaged(path: &Path, error: &Error) -> Error {
    let problem = format!("its content is not what its digest says, and it cannot be had again: {error}");
    Error::file(path, problem, "it was changed after it was downloaded: remove it, or let it be downloaded")
}

pub(super) fn problem(id: &ModelId, problem: HubProblem) -> Error {
    Error::Hub { id: id.to_string(), problem }
}
