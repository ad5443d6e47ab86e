//! What happened at each step, kept for a CSV file and plots.

use crate::Result;
use crate::files::write_atomically;
use std::path::Path;

/// The figures of one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// Counted from 1.
    pub step: usize,
    /// The learning rate.
    pub rate: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// The weighted sum of the tasks' losses.
    pub total: f64,
    /// Each task's loss, unweighted, in the tasks' order.
    pub losses: Vec<f64>,
}

/// All steps of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    tasks: Vec<String>,
    steps: Vec<StepRecord>,
}

impl History {
    /// An empty history of these tasks.
    pub fn new(tasks: impl IntoIterator<Item = String>) -> Self {
        Self { tasks: tasks.into_iter().collect(), steps: Vec::new() }
    }

    /// The tasks' names, in the order of [`StepRecord::losses`].
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Every step so far.
    pub fn steps(&self) -> &[StepRecord] {
        &self.steps
    }

    /// Adds a step.
    pub fn push(&mut self, record: StepRecord) {
        self.steps.push(record);
    }

    /// Writes a table with a header: `step,rate,gradient_norm,total,TASK...`.
    ///
    /// # Errors
    /// A folder or disk that cannot be written to.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        write_atomically(path, |file| {
            writeln!(file, "step,rate,gradient_norm,total,{}", self.tasks.join(","))?;
            for record in &self.steps {
                write!(file, "{},{},{},{}", record.step, record.rate, record.gradient_norm, record.total)?;
                record.losses.iter().try_for_each(|loss| write!(file, ",{loss}"))?;
                writeln!(file)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_column_for_each_task() {
        let mut history = History::new(["sal".to_owned(), "depth".to_owned()]);
        history.push(StepRecord { step: 1, rate: 0.5, gradient_norm: 2.0, total: 3.5, losses: vec![0.25, 1.0] });
        let path = tempfile::tempdir().unwrap().keep().join("losses.csv");
        history.write_csv(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "step,rate,gradient_norm,total,sal,depth\n1,0.5,2,3.5,0.25,1\n");
    }
}
