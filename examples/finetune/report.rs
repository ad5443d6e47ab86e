//! What a run leaves: a table, plots of the losses, a panel of predictions, a line of figures.

use plotters::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use tadformer::candle_core::Tensor;
use tadformer::data::Dataset;
use tadformer::layers::Mode;
use tadformer::metrics::Score;
use tadformer::picture::{DepthRange, Legend, MapColours, Panel, error_legend, error_picture, photo_picture, save_png};
use tadformer::predict::decode;
use tadformer::scenes::Scenes;
use tadformer::train::{Evaluation, History};
use tadformer::{Batch, Sample, TADFormer, Task, TaskKind, TaskSet};

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

/// The last line of a run, for programs.
pub fn json(rows: &[Row], model: &TADFormer, images_per_second: f64, time: Duration, adapter_bytes: u64) -> Value {
    let task = |row: &Row| {
        let figures = json!({
            "metric": row.after.name, "constant": row.constant, "before": row.before, "after": row.after.value,
            "higher_is_better": row.after.higher_is_better,
        });
        (row.task.clone(), figures)
    };
    json!({
        "tasks": rows.iter().map(task).collect::<serde_json::Map<_, _>>(),
        "images_per_second": images_per_second, "seconds": time.as_secs_f64(), "peak_rss_mb": peak_rss_mb(),
        "trainable": model.parameters().trained(), "adapter_bytes": adapter_bytes,
    })
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

/// Image, label, prediction and error of each task for the first few scenes.
pub fn panel(model: &TADFormer, scenes: &Scenes, count: usize, path: &Path) -> anyhow::Result<()> {
    let tasks = &model.config().tasks;
    let titles = tasks.iter().flat_map(|task| [task.name().to_owned(), "predicted".to_owned(), "error".to_owned()]);
    let mut panel = Panel::new(std::iter::once("image".to_owned()).chain(titles)).wrapped(1, 6);
    let samples = (0..count.min(scenes.len())).map(|i| scenes.render(i)).collect::<tadformer::Result<Vec<_>>>()?;
    let colours: Vec<MapColours> =
        tasks.iter().map(|task| colours(task, scenes, &samples)).collect::<Result<_, _>>()?;
    let mut drawn: Vec<Vec<Tensor>> = vec![Vec::new(); tasks.len()];
    for sample in &samples {
        let batch = Batch::stack(std::slice::from_ref(sample), model.ledger().dtype(), model.ledger().device())?;
        let outputs = model.forward(&batch.images, Mode::Eval)?;
        let mut row = vec![photo_picture(&sample.image)?];
        for (((task, output), colours), drawn) in outputs.iter().zip(&colours).zip(&mut drawn) {
            let label = &sample.labels[task.name()];
            let (_, height, width) = label.dims3()?;
            let predicted = decode(task, &output.squeeze(0)?, (height, width))?;
            row.push(colours.picture(label)?);
            row.push(colours.picture(&predicted)?);
            row.push(error_picture(task.kind(), &predicted, label)?);
            drawn.extend([label.clone(), predicted]);
        }
        panel.push(row);
    }
    for legend in legends(tasks, &colours, &drawn)? {
        panel = panel.legend(legend);
    }
    Ok(save_png(&panel.draw(), path)?)
}

/// A task's colours: its classes' names, one range for the depths of all scenes.
fn colours(task: &Task, scenes: &Scenes, samples: &[Sample]) -> tadformer::Result<MapColours> {
    let colours = MapColours::of(task.kind());
    let colours = match scenes.classes(task.name()) {
        Some(classes) => colours.classes(classes),
        None => colours,
    };
    if task.kind() != TaskKind::Depth {
        return Ok(colours);
    }
    let labels: Vec<&Tensor> = samples.iter().map(|sample| &sample.labels[task.name()]).collect();
    Ok(colours.depths(DepthRange::of(&Tensor::cat(&labels, 0)?)?))
}

/// What the tasks' colours mean, and, once each, those of their errors.
fn legends(tasks: &TaskSet, colours: &[MapColours], drawn: &[Vec<Tensor>]) -> tadformer::Result<Vec<Legend>> {
    let of_task = |((task, colours), drawn): ((&Task, &MapColours), &Vec<Tensor>)| colours.legend(task.name(), drawn);
    let mut legends = tasks.iter().zip(colours).zip(drawn).map(of_task).collect::<tadformer::Result<Vec<_>>>()?;
    for error in tasks.iter().map(|task| error_legend(task.kind())) {
        if !legends.contains(&error) {
            legends.push(error);
        }
    }
    Ok(legends)
}
