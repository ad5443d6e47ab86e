//! Where a model's frozen weights came from, and what loading them found.

use crate::checkpoint::Checkpoint;
use crate::checkpoint::nearest;
use crate::params::{Group, Ledger, Pretrained};
use crate::swin::names::Family;
use crate::{Error, Printable, Result};
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// What loading a backbone found: every tensor that was asked for, and every one in the file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadReport {
    /// The checkpoint.
    pub path: PathBuf,
    /// Whose names it uses.
    pub family: Family,
    /// Tensors taken as they are.
    pub loaded: Vec<String>,
    /// Position bias tables resized to another window, with their shapes before and after.
    pub reshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that the model does not use, by their names in the file.
    pub unused: Vec<String>,
    /// Tensors that the backbone needs and the file lacks, the first few with the nearest name that it holds.
    pub missing: Vec<(String, Option<String>)>,
    /// Biases of queries, keys and values in a network made without them: zeros.
    pub zeros: Vec<String>,
    /// Tensors of another shape: what was expected, and what came.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl LoadReport {
    /// Compares what the ledger's pretrained weights needed with what the checkpoint holds.
    pub(crate) fn compare(family: Family, checkpoint: &Checkpoint, unused: Vec<String>, ledger: &Ledger) -> Self {
        let path = checkpoint.path().to_owned();
        let (loaded, reshaped, missing, zeros, misshapen) = (vec![], vec![], vec![], vec![], vec![]);
        let mut report = Self { path, family, loaded, reshaped, unused, missing, zeros, misshapen };
        let needed = ledger.entries();
        for entry in needed.iter().filter(|entry| matches!(entry.group, Group::Pretrained(_))) {
            let (name, want) = (entry.name.clone(), entry.tensor().dims().to_vec());
            match checkpoint.shape(&name) {
                None => report.missing.push((name, None)),
                Some(got) if got == want && checkpoint.source(&name).is_none() => report.zeros.push(name),
                Some(got) if got == want => report.loaded.push(name),
                Some(got) if is_table(entry.group, &got, &want) => report.reshaped.push((name, got, want)),
                Some(got) => report.misshapen.push((name, want, got)),
            }
        }
        let used: HashSet<&str> = needed.iter().map(|entry| entry.name.as_str()).collect();
        let left = checkpoint.names().filter(|name| !used.contains(name));
        report.unused.extend(left.filter_map(|name| checkpoint.source(name)).map(str::to_owned));
        report.unused.sort();
        // Few are enough to see what happened, and a hostile file must not buy many comparisons.
        for (name, candidate) in report.missing.iter_mut().take(8) {
            *candidate = nearest(name, checkpoint.names()).map(str::to_owned);
        }
        report
    }

    /// Refuses a report with missing or misshapen tensors.
    pub(crate) fn check(&self) -> Result<()> {
        let (path, cure) = (self.path.display(), "choose the preset that the checkpoint was made with");
        let more = |n: usize| if n > 1 { format!(" (and {} more)", n - 1) } else { String::new() };
        if let Some((name, nearest)) = self.missing.first() {
            let hint =
                nearest.as_ref().map_or(String::new(), |near| format!("; the nearest name in the file is `{near}`"));
            let more = more(self.missing.len());
            return Err(Error::Checkpoint(format!("{path}: tensor `{name}` is missing{more}{hint} ({cure})")));
        }
        if let Some((name, want, got)) = self.misshapen.first() {
            let more = more(self.misshapen.len());
            let message = format!("{path}: tensor `{name}` has shape {got:?}, expected {want:?}{more} ({cure})");
            return Err(Error::Checkpoint(message));
        }
        Ok(())
    }
}

/// Whether a table of one window was resized to another's.
fn is_table(group: Group, got: &[usize], want: &[usize]) -> bool {
    let square = |n: usize| n.isqrt() * n.isqrt() == n;
    group == Group::Pretrained(Pretrained::PositionBias) && got.len() == 2 && got[1] == want[1] && square(got[0])
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Printable(self.path.display());
        write!(f, "{path} ({:?} names): {} tensors loaded", self.family, self.loaded.len())?;
        write!(f, ", {} resized, {} unused", self.reshaped.len(), self.unused.len())?;
        if !self.zeros.is_empty() {
            write!(f, ", {} biases of zeros", self.zeros.len())?;
        }
        write!(f, ", {} missing, {} misshapen", self.missing.len(), self.misshapen.len())
    }
}
