//! Parts of a model kept as they are while the others train.

use super::TADFormer;
use super::held::Part;
use crate::params::{Entry, Group, Role};
use crate::{Error, Result};
use candle_core::Var;
use std::collections::BTreeSet;

impl TADFormer {
    /// Keeps a part as it is while the others train: a task's decoder by the task's name (projections and BatchNorm statistics too), or
    /// a group of weights by its name in [`TADFormer::parameters`].
    ///
    /// No gradient of it is made; the table counts it as frozen; files keep it as any trained weight. BatchNorm of a frozen decoder
    /// normalises by its statistics in training as well. A layer that decoders share trains on, by the gradients of those that do, until
    /// none of them does or `shared_heads` is frozen. An optimizer made before moves nothing of it; one that is
    /// to move what was unfrozen is made afterwards.
    ///
    /// ```
    /// use tadformer::{SwinConfig, TADFormer};
    /// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
    /// let mut model = TADFormer::builder(small).tasks("semseg=21,depth=1".parse()?).rank(4).build()?;
    /// let before = model.parameters().trained();
    /// model.freeze("depth")?;
    /// model.freeze("low_rank")?;
    /// assert!(model.parameters().trained() < before);
    /// model.unfreeze("depth")?;
    /// model.unfreeze("low_rank")?;
    /// assert_eq!(model.parameters().trained(), before);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// A name that is neither a task's nor that of a group that could train; the message lists those that are. A task of a group's name
    /// hides the group.
    pub fn freeze(&mut self, name: &str) -> Result<()> {
        let held = self.held().clone().with(self.part(name)?);
        Ok(self.hold(held)?)
    }

    /// Lets a part that was frozen train again, from the values that it has; one that trains goes on.
    ///
    /// # Errors
    /// As [`TADFormer::freeze`].
    pub fn unfreeze(&mut self, name: &str) -> Result<()> {
        let held = self.held().clone().without(&self.part(name)?);
        Ok(self.hold(held)?)
    }

    /// The variables that train, in the ledger's order: for candle's optimizers.
    pub fn trainable(&self) -> Vec<Var> {
        self.ledger().trained().iter().filter_map(Entry::trained).cloned().collect()
    }

    /// The part of this name.
    fn part(&self, name: &str) -> Result<Part> {
        let parts = self.parts_that_could_train();
        parts.iter().find(|part| part.name() == name).cloned().ok_or_else(|| {
            let names = parts.iter().map(Part::name).collect::<Vec<_>>().join(", ");
            Error::config(
                "freeze",
                format!("one of {names}"),
                name,
                "name a task for its decoder, or a group of weights",
            )
        })
    }

    /// The tasks' decoders, then the groups.
    fn parts_that_could_train(&self) -> Vec<Part> {
        let could = |entry: &Entry| matches!(entry.role, Role::Trained(_) | Role::Held(_));
        let groups: BTreeSet<Group> = self.ledger().entries().iter().filter(|e| could(e)).map(|e| e.group).collect();
        let heads = self.config().tasks.iter().map(|task| Part::Head(task.name.clone()));
        heads.chain(groups.into_iter().map(Part::Group)).collect()
    }
}
