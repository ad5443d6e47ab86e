//! The report's HTML: the models beside each other, and each task with its charts and pictures.

use super::chart::{SERIES, bars, curves, histograms, matrix};
use super::table::{costs_of, number, title};
use super::{EvaluatedModel, EvaluatedTask, EvaluationReport, Example, Rank, page};
use crate::TaskKind;
use crate::metrics::Score;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};

impl EvaluationReport {
    /// The report as one HTML file that loads nothing.
    pub fn html(&self) -> String {
        let tasks = self.tasks();
        let content = html! {
            h1 { (self.data) }
            p.lead { (self.sentence()) }
            nav { @for task in &tasks { a href={ "#" (task.name) } { (task.name) } } }
            section { (self.overview(&tasks)) }
            @for task in &tasks { (self.section(task)) }
        };
        page::page(&self.data, content)
    }

    /// The models' primary figures and costs; the best of each column stands out.
    fn overview(&self, tasks: &[&EvaluatedTask]) -> Markup {
        html! {
            div.scroll {
                table.figures {
                    thead {
                        tr {
                            th { "model" }
                            @for task in tasks { th { (head(task)) } }
                            @for cost in ["delta_m ↑", "parameters", "adapter", "s an image"] { th { (cost) } }
                        }
                    }
                    tbody {
                        @for (i, model) in self.models.iter().enumerate() {
                            tr {
                                th { (key(i)) (model.name) }
                                @for task in tasks { (self.cell(model, &task.name, 0)) }
                                @for cost in costs_of(model) { td { (cost) } }
                            }
                        }
                        @if tasks.iter().any(|task| task.reference.is_some()) {
                            tr.reference {
                                th { "one model a task" }
                                @for task in tasks { td { (number(task.reference)) } }
                                @for _ in 0..4 { td { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }

    /// A model's figure of a task, in bold where no other model's is better.
    fn cell(&self, model: &EvaluatedModel, task: &str, figure: usize) -> Markup {
        let of = |model: &EvaluatedModel| model.task(task).and_then(|task| task.scores.get(figure).cloned());
        let shown = of(model);
        let best = shown.as_ref().and_then(|score| score.value).is_some_and(|value| {
            let others = self.models.iter().filter_map(of);
            self.models.len() > 1
                && others
                    .filter_map(|score| Some((score.value?, score.higher_is_better)))
                    .all(|(other, higher)| if higher { value >= other } else { value <= other })
        });
        let value = number(shown.and_then(|score| score.value));
        html! { td { @if best { b { (value) } } @else { (value) } } }
    }

    fn section(&self, task: &EvaluatedTask) -> Markup {
        let parts: Vec<(usize, &EvaluatedModel, &EvaluatedTask)> =
            self.models.iter().enumerate().filter_map(|(i, m)| Some((i, m, m.task(&task.name)?))).collect();
        html! {
            section id=(task.name) {
                h2 { (task.name) }
                (self.figures_of(task))
                div.charts {
                    (classes(&parts))
                    (precision_recall(&parts))
                    (error_sizes(&parts))
                }
                @for (i, model, task) in &parts {
                    @if task.confusion.is_some() || !task.examples.is_empty() {
                        @if self.models.len() > 1 { h3 { (key(*i)) (model.name) } }
                        @if let Some(confusion) = &task.confusion {
                            details { summary { "How classes were taken for each other, percent of each label's pixels" } (matrix(&task.classes, confusion)) }
                        }
                        (examples("Best images", task.examples.iter().filter(|e| e.rank == Rank::Best)))
                        (examples("Worst images", task.examples.iter().filter(|e| e.rank == Rank::Worst)))
                    }
                }
            }
        }
    }

    /// Every figure of a task, a row each.
    fn figures_of(&self, task: &EvaluatedTask) -> Markup {
        html! {
            div.scroll {
                table.figures {
                    thead { tr { th { "figure" } @for (i, model) in self.models.iter().enumerate() { th { (key(i)) (model.name) } } } }
                    tbody {
                        @for (figure, score) in task.scores.iter().enumerate().filter(|(_, score)| !drawn_as_bar(task, score)) {
                            tr {
                                th { (score.name) " " (score.arrow()) }
                                @for model in &self.models { (self.cell(model, &task.name, figure)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether a figure is a class's intersection over union, which stands among the bars.
fn drawn_as_bar(task: &EvaluatedTask, score: &Score) -> bool {
    task.confusion.is_some() && score.name.starts_with("iou_")
}

fn head(task: &EvaluatedTask) -> String {
    task.scores.first().map_or_else(|| task.name.clone(), |score| title(&task.name, score))
}

/// A model's colour before its name.
fn key(i: usize) -> Markup {
    html! { span class={ "key series-" (i % SERIES) } {} }
}

type Parts<'a> = [(usize, &'a EvaluatedModel, &'a EvaluatedTask)];

fn classes(parts: &Parts) -> Markup {
    let confusions: Vec<_> = parts.iter().filter_map(|(.., task)| task.confusion.as_ref()).collect();
    let names = parts.iter().map(|(.., task)| &task.classes).max_by_key(|classes| classes.len());
    let Some(names) = names.filter(|names| !names.is_empty()) else { return html! {} };
    let row = |(class, name): (usize, &String)| {
        (name.clone(), confusions.iter().map(|confusion| confusion.iou(class)).collect())
    };
    let rows: Vec<(String, Vec<Option<f64>>)> = names.iter().enumerate().map(row).collect();
    html! { figure.wide { figcaption { "Intersection over union of each class" } (bars(&rows)) } }
}

fn precision_recall(parts: &Parts) -> Markup {
    let all: Vec<_> = parts.iter().filter_map(|(.., task)| task.curve.as_deref()).collect();
    if all.is_empty() {
        return html! {};
    }
    html! { figure { figcaption { "Precision and recall by threshold; the dot is the best F" } (curves(&all)) } }
}

fn error_sizes(parts: &Parts) -> Markup {
    let all: Vec<_> = parts.iter().filter_map(|(.., task)| task.errors.as_ref()).collect();
    if all.is_empty() {
        return html! {};
    }
    let label = if parts.iter().any(|(.., task)| task.kind == TaskKind::Depth) { "error / depth" } else { "degrees" };
    html! { figure { figcaption { "How often errors of each size were made; the last bin holds all larger ones" } (histograms(label, &all)) } }
}

fn examples<'a>(heading: &str, examples: impl Iterator<Item = &'a Example>) -> Markup {
    let mut examples = examples.peekable();
    html! {
        @if examples.peek().is_some() {
            h4 { (heading) }
            div.examples {
                @for example in examples {
                    figure.example {
                        img src={ "data:image/png;base64," (BASE64_STANDARD.encode(&example.png)) } alt=(example.caption) loading="lazy";
                        figcaption { (example.caption) }
                    }
                }
            }
        }
    }
}
