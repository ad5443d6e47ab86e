//! What a run shows while it goes on.

use super::{Evaluation, History, StepRecord};
use indicatif::{ProgressBar as Bar, ProgressStyle};
use std::io::Write;

/// What is told of every step and validation of a run.
///
/// The best weights are in their file before [`Observer::validated`] hears of them. Nothing that an observer writes can end a run, if it
/// takes no notice of what a terminal answers that has gone: `println!` and `eprintln!` panic there, `writeln!` tells.
pub trait Observer {
    /// After each step, with how many images it trained on.
    fn step(&mut self, tasks: &[String], record: &StepRecord, images: usize);
    /// After each validation; `best` where it is the best so far.
    fn validated(&mut self, step: usize, evaluation: &Evaluation, best: bool);
    /// At the end.
    fn finished(&mut self, history: &History);
}

/// An [`Observer`] that shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &[String], _: &StepRecord, _: usize) {}
    fn validated(&mut self, _: usize, _: &Evaluation, _: bool) {}
    fn finished(&mut self, _: &History) {}
}

/// A bar with each task's loss, images a second and the time left; a line for each validation.
///
/// It is drawn on standard error. Where that is no terminal only the lines are written, and where it is closed nothing is.
#[derive(Debug)]
pub struct ProgressBar {
    bar: Bar,
    images: usize,
    means: Vec<f64>,
}

impl ProgressBar {
    /// For a run of so many steps.
    pub fn new(steps: usize) -> Self {
        let bar = Bar::new(steps as u64);
        let template = "{bar:24} {pos}/{len} {elapsed_precise} left {eta_precise} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, images: 0, means: Vec::new() }
    }

    fn line(&self, text: String) {
        if !self.bar.is_hidden() {
            return self.bar.println(text);
        }
        // Who read it may be gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Observer for ProgressBar {
    fn step(&mut self, tasks: &[String], record: &StepRecord, images: usize) {
        self.images += images;
        // Losses jump from batch to batch: the bar shows their running means.
        self.means.resize(record.losses.len(), f64::NAN);
        for (mean, loss) in self.means.iter_mut().zip(&record.losses) {
            *mean = if mean.is_nan() { *loss } else { 0.95 * *mean + 0.05 * loss };
        }
        let losses: Vec<String> =
            tasks.iter().zip(&self.means).map(|(task, mean)| format!("{task} {mean:.3}")).collect();
        let speed = self.images as f64 / self.bar.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!("{speed:.1} images/s | {}", losses.join(" ")));
        self.bar.set_position(record.step as u64);
    }

    fn validated(&mut self, step: usize, evaluation: &Evaluation, best: bool) {
        let scores = evaluation.iter().map(|(task, scores)| {
            let value = scores.primary.value.map_or("-".to_owned(), |value| format!("{value:.4}"));
            format!("{} {} {value}", task.name, scores.primary.name)
        });
        let mark = if best { " (best so far)" } else { "" };
        self.line(format!("step {step}: {}{mark}", scores.collect::<Vec<_>>().join(", ")));
    }

    fn finished(&mut self, _: &History) {
        self.bar.finish_and_clear();
    }
}
