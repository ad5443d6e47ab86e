//! A trained model with other tasks: those that stay keep what they learnt.

use super::{TADFormer, TADFormerConfig};
use crate::params::{Entry, Role};
use crate::task::TaskSet;
use crate::{Error, Result};
use candle_core::{Tensor, Var};
use std::collections::HashMap;

/// The one weight that all tasks have rows of.
const PROMPTS: &str = "prompts.table";

impl TADFormer {
    /// This model with other tasks, added, removed or in another order: a new model on the same frozen tensors.
    ///
    /// What was trained is carried over bit for bit: what tasks share (low-rank paths, dynamic filters, gates, released weights, a first
    /// layer of their decoders), and of each task that stays its rows of the prompts, its static filters, its decoder and the decoder's
    /// statistics. What only new tasks have is drawn with `seed`. What [`TADFormer::freeze`] keeps is kept in the new model too: decoders
    /// of tasks that stay, and groups with what new tasks add to them, until they are unfrozen there. This model stays as it is.
    ///
    /// Without prompts the outputs of the tasks that stay are equal to rounding: products of another number of tasks add up in
    /// another order, which moves outputs of order one by less than 1e-5. With prompts they move, though no weight does: the
    /// prompts of all tasks are attended to by the shared tokens.
    ///
    /// ```
    /// use tadformer::{TADFormer, swin::SwinConfig};
    /// let small = SwinConfig { embed_dim: 16, num_heads: vec![1, 2, 4, 8], image_size: 64, ..SwinConfig::tiny() };
    /// let model = TADFormer::builder(small).tasks("semseg=21,depth=1".parse()?).rank(4).build()?;
    /// let more = model.with_tasks(model.config().tasks.with("sal=1".parse()?)?, 7)?;
    /// let fewer = more.with_tasks(more.config().tasks.without("depth")?, 7)?;
    /// assert_eq!(fewer.config().tasks.to_string(), "semseg=21,sal=1");
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// A task of the name of one of this model's, of another kind or with another number of outputs.
    pub fn with_tasks(&self, tasks: TaskSet, seed: u64) -> Result<Self> {
        let mine = &self.config().tasks;
        for task in tasks.iter() {
            if let Some(own) = mine.get(&task.name).filter(|own| *own != task) {
                let cure = "give the new task another name, such as rooms:semseg=13";
                return Err(Error::config(format!("task {}", task.name), own.to_string(), task, cure));
            }
        }
        let mut config = TADFormerConfig { tasks, ..self.config().clone() };
        config.own_heads.retain(|name, _| config.tasks.get(name).is_some());
        let mut model = self.sharing(config, seed)?;
        let own: HashMap<String, Entry> = self.ledger().entries().into_iter().map(|e| (e.name.clone(), e)).collect();
        for entry in model.ledger().entries() {
            let (Role::Trained(var) | Role::Statistics(var)) = &entry.role else { continue };
            match own.get(&entry.name) {
                Some(old) if entry.name == PROMPTS => model.carry_prompts(var, mine, old.tensor())?,
                Some(old) => var.set(old.tensor())?,
                None => {}
            }
        }
        model.hold(self.held().clone().of(&model.config().tasks))?;
        Ok(model)
    }

    /// Sets the rows of tasks that were there before; the others stay as they were drawn.
    fn carry_prompts(&self, table: &Var, before: &TaskSet, old: &Tensor) -> Result<()> {
        let count = self.config().method.prompts().per_task();
        let rows = |(t, name): (usize, &str)| match before.iter().position(|task| task.name == name) {
            Some(earlier) => old.narrow(0, earlier * count, count),
            None => table.as_tensor().narrow(0, t * count, count),
        };
        let names = self.config().tasks.iter().map(|task| task.name.as_str()).enumerate();
        let rows = names.map(rows).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(table.set(&Tensor::cat(&rows, 0)?.copy()?)?)
    }
}
