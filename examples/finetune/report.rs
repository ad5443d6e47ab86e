//! What a run leaves: a table, plots of the losses, what was left out, a line of figures.

use plotters::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use tadformer::TADFormer;
use tadformer::data::Skipped;
use tadformer::metrics::Score;
use tadformer::train::{Evaluation, History};

/// One task's figure before and after, beside a prediction that ignores the image.
pub struct Row {
    pub task: String,
    pub constant: Option<f64>,
    pub before: Option<f64>,
    pub after: Score,
}

/// One row a task.
pub fn rows(constant: &Evaluation, before: &Evaluation, after: &Evaluation) -> Vec<Row> {
    let value = |evaluation: &Evaluation, task: &str| evaluation.get(task).and_then(|scores| scores.primary.value);
    let row = |(task, scores): (&tadformer::Task, &tadformer::metrics::Scores)| Row {
        task: task.name().to_owned(),
        constant: value(constant, task.name()),
        before: value(before, task.name()),
        after: scores.primary.clone(),
    };
    after.iter().map(row).collect()
}

impl Row {
    /// How much better than the constant prediction, relative to it.
    fn gain(&self) -> Option<f64> {
        let gain = (self.after.value? - self.constant?) / self.constant?.abs();
        Some(if self.after.higher_is_better { gain } else { -gain })
    }
}

/// The rows under a header.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14}{:<16}{:>10}{:>10}{:>10}{:>16}\n",
        "task", "metric", "constant", "before", "after", "over constant"
    );
    for row in rows {
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        let gain = row.gain().map_or("-".to_owned(), |gain| format!("{:+.0} %", 100.0 * gain));
        let metric = format!("{} {}", row.after.name, row.after.arrow());
        let figures = [figure(row.constant), figure(row.before), figure(row.after.value)];
        let _ = writeln!(
            text,
            "{:<14}{metric:<16}{:>10}{:>10}{:>10}{gain:>16}",
            row.task, figures[0], figures[1], figures[2]
        );
    }
    text
}

/// The figures for the model card.
pub fn scores(rows: &[Row]) -> impl Iterator<Item = (String, Score)> {
    rows.iter().map(|row| (row.task.clone(), row.after.clone()))
}

/// How a run went, beside its figures.
pub struct Run {
    pub images_per_second: f64,
    pub time: Duration,
    pub adapter_bytes: u64,
    /// Could not be read, in training and in a validation.
    pub left_out: [usize; 2],
}

/// The last line of a run, for programs.
pub fn json(rows: &[Row], model: &TADFormer, run: &Run) -> Value {
    let task = |row: &Row| {
        let figures = json!({
            "metric": row.after.name, "constant": row.constant, "before": row.before, "after": row.after.value,
            "higher_is_better": row.after.higher_is_better,
        });
        (row.task.clone(), figures)
    };
    json!({
        "tasks": rows.iter().map(task).collect::<serde_json::Map<_, _>>(),
        "images_per_second": run.images_per_second, "seconds": run.time.as_secs_f64(), "peak_rss_mb": peak_rss_mb(),
        "trainable": model.parameters().trained(), "adapter_bytes": run.adapter_bytes,
        "left_out": { "training": run.left_out[0], "validation": run.left_out[1] },
    })
}

/// What could not be read, where there was something.
pub fn left_out(of: &str, skipped: &Skipped) -> Option<String> {
    let times = if skipped.count == 1 { "once" } else { &format!("{} times", skipped.count) };
    let reasons: String = skipped.reasons.iter().map(|reason| format!("\n  {reason}")).collect();
    let more = if skipped.count > skipped.reasons.len() { "\n  ..." } else { "" };
    (skipped.count > 0).then(|| format!("left out of {of}, {times}, what could not be read:{reasons}{more}"))
}

/// The most memory the process has held, where the system tells.
fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Each task's loss over the steps, smoothed, one small plot each.
pub fn plot(history: &History, path: &Path) -> anyhow::Result<()> {
    let (columns, rows) = (3, history.tasks().len().div_ceil(3));
    let mut drawn = String::new();
    {
        let root = SVGBackend::with_string(&mut drawn, (960, 260 * rows as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for (t, (area, task)) in root.split_evenly((rows, columns)).iter().zip(history.tasks()).enumerate() {
            let points = smoothed(history, t);
            let high = points.iter().map(|(_, loss)| *loss).fold(0.0, f64::max) * 1.05;
            let steps = history.steps().len().max(2) as f64;
            let mut chart = ChartBuilder::on(area)
                .caption(task, ("sans-serif", 16))
                .margin(8)
                .x_label_area_size(24)
                .y_label_area_size(44)
                .build_cartesian_2d(1.0..steps, 0.0..high.max(1e-6))?;
            chart.configure_mesh().x_labels(5).y_labels(5).light_line_style(WHITE).draw()?;
            chart.draw_series(LineSeries::new(points, &BLUE))?;
        }
        root.present()?;
    }
    Ok(tadformer::files::write_atomically(path, |file| file.write_all(drawn.as_bytes()))?)
}

/// Running means over a twentieth of the steps.
fn smoothed(history: &History, task: usize) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (history.steps().len() as f64 / 20.0).max(1.0);
    let mut mean = None;
    let point = |record: &tadformer::train::StepRecord| {
        let loss = record.losses[task];
        let next = mean.map_or(loss, |mean: f64| keep * mean + (1.0 - keep) * loss);
        mean = Some(next);
        (record.step as f64, next)
    };
    history.steps().iter().map(point).collect()
}
