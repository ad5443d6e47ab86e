//! Figures of models trained for one task each: what delta_m is measured against.

use anyhow::Context;
use tadformer::data::Layout;
use tadformer::metrics::{NYUD_SINGLE_TASK, PASCAL_SINGLE_TASK};
use tadformer::report::{EvaluatedModel, EvaluatedTask};

/// A task's name and its figure, as a meter gives it.
pub type Reference = (String, f64);

/// Those that are given, or the published ones of the data set.
pub fn of(layout: Layout, given: &str) -> anyhow::Result<Vec<Reference>> {
    if !given.is_empty() {
        return given.split(',').map(parsed).collect();
    }
    let published: &[(&str, f64)] = match layout {
        Layout::PascalContext => &PASCAL_SINGLE_TASK,
        Layout::NyudV2 => &NYUD_SINGLE_TASK,
        _ => &[],
    };
    // Papers print percent, meters give shares; degrees and metres are the same in both.
    let figure = |(task, value): &(&str, f64)| {
        let share = matches!(*task, "semseg" | "human_parts" | "sal");
        ((*task).to_owned(), if share { value / 100.0 } else { *value })
    };
    Ok(published.iter().map(figure).collect())
}

fn parsed(text: &str) -> anyhow::Result<Reference> {
    let wrong = || format!("--references: expected TASK=FIGURE, got `{text}`");
    let (task, figure) = text.split_once('=').with_context(wrong)?;
    let figure: f64 = figure.trim().parse().with_context(wrong)?;
    anyhow::ensure!(figure.is_finite(), wrong());
    Ok((task.trim().to_owned(), figure))
}

/// The model with what its tasks are compared with.
pub fn with(model: EvaluatedModel, references: &[Reference]) -> EvaluatedModel {
    let referred = |task: EvaluatedTask| match references.iter().find(|(name, _)| *name == task.name) {
        Some((_, figure)) => task.reference(*figure),
        None => task,
    };
    let mut model = model;
    model.tasks = model.tasks.into_iter().map(referred).collect();
    model
}
