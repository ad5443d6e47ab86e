//! Several models on one backbone in memory: each has its own trained weights, the frozen tensors are the same.

use super::{TADFormer, TADFormerConfig};
use crate::params::{Ledger, Role, Weights, frozen_source};
use crate::{Error, Result};
use std::collections::HashMap;

impl TADFormer {
    /// A model of this configuration whose frozen tensors are this model's own, with new trained weights drawn with `seed`.
    ///
    /// # Errors
    /// A weight that would stay frozen, and that this model has trained or holds in another shape; the message counts them.
    pub(super) fn sharing(&self, config: TADFormerConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let ledger = Ledger::seeded(seed, self.ledger().dtype(), self.ledger().device());
        let weights = Weights::new(frozen_source(self.ledger()), ledger.clone(), config.release.clone());
        let model = Self::assemble(config, &weights, ledger)?;
        let unlike = self.not_shared_with(&model);
        match unlike.first() {
            None => Ok(model.with_base(self.base().clone(), self.load_report().cloned())),
            Some(name) => {
                let expected = format!("`{name}` frozen, in the shape that is asked for");
                let got = format!("a model that trained it or has another window ({} such weights)", unlike.len());
                Err(Error::config("backbone", expected, got, "open the adapter with `TADFormer::open`"))
            }
        }
    }

    /// The frozen weights of `other` that are no frozen weights of this model.
    fn not_shared_with(&self, other: &Self) -> Vec<String> {
        let mine = self.ledger().entries().into_iter().filter(|entry| matches!(entry.role, Role::Frozen(_)));
        let mine: HashMap<_, _> = mine.map(|entry| (entry.name.clone(), entry.tensor().dims().to_vec())).collect();
        let theirs = other.ledger().entries().into_iter().filter(|entry| matches!(entry.role, Role::Frozen(_)));
        let unlike = theirs.filter(|entry| mine.get(&entry.name).map(Vec::as_slice) != Some(entry.tensor().dims()));
        unlike.map(|entry| entry.name).collect()
    }
}
