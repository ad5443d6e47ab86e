//! The report as lines of text, for terminals and in Markdown.

use super::{EvaluatedModel, EvaluatedTask, EvaluationReport};
use crate::metrics::Score;
use std::fmt;

/// A table of strings: a head, and rows that each begin with a name.
struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl EvaluationReport {
    /// The tables of the report in Markdown: what was measured, the models beside each other, and every figure of every task.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n\n{}", self.data, self.sentence(), self.summary().markdown());
        for task in self.tasks() {
            text += &format!("\n## {}\n\n{}", task.name, self.figures(task).markdown());
        }
        text
    }

    /// What was measured, in one sentence.
    pub(super) fn sentence(&self) -> String {
        format!("{} images, outputs and labels compared at {}.", self.images, self.size)
    }

    /// Each model's primary figures, delta_m and costs.
    fn summary(&self) -> Table {
        let tasks = self.tasks();
        let primary =
            |task: &&EvaluatedTask| task.scores.first().map_or_else(|| task.name.clone(), |s| title(&task.name, s));
        let costs = ["delta_m", "parameters", "adapter", "s an image"].map(str::to_owned);
        let head = std::iter::once("model".to_owned()).chain(tasks.iter().map(primary)).chain(costs).collect();
        let row = |model: &EvaluatedModel| {
            let figure = |task: &&EvaluatedTask| {
                model
                    .task(&task.name)
                    .and_then(|task| task.scores.first())
                    .map_or_else(none, |score| number(score.value))
            };
            let figures = tasks.iter().map(figure);
            std::iter::once(model.name.clone()).chain(figures).chain(costs_of(model)).collect()
        };
        let mut rows: Vec<Vec<String>> = self.models.iter().map(row).collect();
        if let Some(references) = self.references(&tasks) {
            rows.push(references);
        }
        Table { head, rows }
    }

    /// The figures of models trained for one task each, where any is known.
    fn references(&self, tasks: &[&EvaluatedTask]) -> Option<Vec<String>> {
        tasks.iter().any(|task| task.reference.is_some()).then(|| {
            let figures = tasks.iter().map(|task| number(task.reference));
            let rest = std::iter::repeat_n(none(), 4);
            std::iter::once("one model a task".to_owned()).chain(figures).chain(rest).collect()
        })
    }

    /// Every figure of one task, a row each, a column a model.
    fn figures(&self, task: &EvaluatedTask) -> Table {
        let head = std::iter::once("figure".to_owned()).chain(self.models.iter().map(|model| model.name.clone()));
        let row = |score: &Score| {
            let of = |model: &EvaluatedModel| {
                number(model.task(&task.name).and_then(|task| task.score(&score.name)).and_then(|score| score.value))
            };
            std::iter::once(format!("{} {}", score.name, score.arrow())).chain(self.models.iter().map(of)).collect()
        };
        Table { head: head.collect(), rows: task.scores.iter().map(row).collect() }
    }
}

impl fmt::Display for EvaluationReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}: {}\n", self.data, self.sentence())?;
        self.summary().print(f)
    }
}

pub(super) fn title(task: &str, score: &Score) -> String {
    format!("{task} {} {}", score.name, score.arrow())
}

/// The parameters, bytes and seconds of a model as a table shows them.
pub(super) fn costs_of(model: &EvaluatedModel) -> [String; 4] {
    let percent = model.delta_m().map_or_else(none, |gain| format!("{:+.2} %", 100.0 * gain));
    let millions = model.trained.map_or_else(none, |count| format!("{:.2} M", count as f64 / 1e6));
    let megabytes = model.adapter_bytes.map_or_else(none, |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
    [percent, millions, megabytes, model.seconds_per_image.map_or_else(none, |seconds| format!("{seconds:.3}"))]
}

/// A figure, or a dash.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(none, |value| format!("{value:.4}"))
}

fn none() -> String {
    "–".to_owned()
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            format!("| {} |\n", cells.iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
        };
        let rule = format!("| --- |{}\n", " ---: |".repeat(self.head.len() - 1));
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    /// Aligned columns: names to the left, figures to the right.
    fn print(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |i: usize| lines().map(|row| row[i].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for row in lines() {
            write!(f, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
