//! Published figures: of models trained for one task each, which delta_m is measured against, and of TADFormer itself.

use anyhow::Context;
use tadformer::TaskKind;
use tadformer::data::Layout;
use tadformer::metrics::{NYUD_SINGLE_TASK, PASCAL_SINGLE_TASK, Score};
use tadformer::report::{EvaluatedModel, EvaluatedTask};

/// The paper's Swin-T on PASCAL-Context: rank, percent of semseg, human parts and saliency, degrees of normals, trained parameters.
const TADFORMER: [(usize, [f64; 4], usize); 3] = [
    (16, [69.79, 59.27, 65.04, 16.91], 3_560_000),
    (32, [70.20, 60.00, 65.71, 16.57], 4_780_000),
    (64, [70.82, 60.45, 65.88, 16.48], 7_380_000),
];

/// The paper's own models, to stand beside those that were measured.
pub fn published(layout: Layout) -> Vec<EvaluatedModel> {
    if layout != Layout::PascalContext {
        return Vec::new();
    }
    let model = |(rank, [semseg, parts, sal, normals], trained): (usize, [f64; 4], usize)| {
        let share = |name: &str, kind, figure: &str, percent: f64| {
            EvaluatedTask::new(name, kind, vec![Score::higher(figure, Some(percent / 100.0))])
        };
        let tasks = vec![
            share("semseg", TaskKind::Semseg, "miou", semseg),
            share("human_parts", TaskKind::HumanParts, "miou", parts),
            share("sal", TaskKind::Sal, "max_iou", sal),
            EvaluatedTask::new("normals", TaskKind::Normals, vec![Score::lower("mean_degrees", Some(normals))]),
        ];
        let mut model = EvaluatedModel::new(format!("TADFormer r={rank}, published"), tasks);
        model.trained = Some(trained);
        model
    };
    TADFORMER.into_iter().map(model).collect()
}

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
