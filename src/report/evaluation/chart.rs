//! Charts as SVG: bars, curves, counts and a matrix, drawn with the page's own colours.

use crate::metrics::{Confusion, Histogram, PrecisionRecall};
use maud::{Markup, PreEscaped, html};

/// Horizontal bars from 0 to 1, one a name; those without a value are left empty.
pub(super) fn bars(rows: &[(String, Vec<Option<f64>>)]) -> Markup {
    html! {
        div.bars {
            @for (name, values) in rows {
                div.bar-name { (name) }
                div.bar-group {
                    @for (i, value) in values.iter().enumerate() {
                        div.bar-line {
                            div.bar-track { div class={ "bar series-" (i % SERIES) } style=(width(*value)) {} }
                            span.bar-value { @if let Some(value) = value { (percent(*value)) } @else { "absent" } }
                        }
                    }
                }
            }
        }
    }
}

/// Colours that tell models apart.
pub(super) const SERIES: usize = 6;

fn width(value: Option<f64>) -> String {
    format!("width:{:.1}%", 100.0 * value.unwrap_or_default().clamp(0.0, 1.0))
}

fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 36.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 14.0;

/// Where a point of 0 to 1 each way lies in a plot.
fn at(x: f64, y: f64) -> (f64, f64) {
    (LEFT + x * (WIDTH - LEFT - RIGHT), TOP + (1.0 - y) * (HEIGHT - TOP - BOTTOM))
}

/// A plot's frame with a tick at each of these shares of its sides, and what stands on its axes.
fn frame(x: &[(f64, String)], y: &[(f64, String)], axes: (&str, &str), content: Markup) -> Markup {
    let (x0, y0) = at(0.0, 0.0);
    let (x1, y1) = at(1.0, 1.0);
    html! {
        svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(format!("{} over {}", axes.1, axes.0)) {
            @for (share, label) in x {
                @let (x, _) = at(*share, 0.0);
                line.grid x1=(x) y1=(y0) x2=(x) y2=(y1) {}
                text.tick x=(x) y=(y0 + 14.0) text-anchor="middle" { (label) }
            }
            @for (share, label) in y {
                @let (_, y) = at(0.0, *share);
                line.grid x1=(x0) y1=(y) x2=(x1) y2=(y) {}
                text.tick x=(x0 - 5.0) y=(y + 4.0) text-anchor="end" { (label) }
            }
            (content)
            text.axis x=((x0 + x1) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (axes.0) }
            text.axis transform=(format!("translate(11 {}) rotate(-90)", (y0 + y1) / 2.0)) text-anchor="middle" { (axes.1) }
        }
    }
}

/// Precision over recall, one curve a model, its best F marked.
pub(super) fn curves(models: &[&[PrecisionRecall]]) -> Markup {
    let ticks: Vec<(f64, String)> =
        (0..=5).map(|i| (f64::from(i) / 5.0, format!("{:.1}", f64::from(i) / 5.0))).collect();
    let content = html! {
        @for (i, curve) in models.iter().enumerate() {
            polyline class={ "curve stroke-" (i % SERIES) } points=(points(curve)) {}
            @if let Some(best) = best(curve) {
                @let (x, y) = at(best.recall, best.precision);
                circle class={ "series-" (i % SERIES) } cx=(x) cy=(y) r="4" {
                    title { (format!("F {:.4} at threshold {:.3}", best.f, best.threshold.unwrap_or_default())) }
                }
            }
        }
    };
    frame(&ticks, &ticks, ("recall", "precision"), content)
}

fn points(curve: &[PrecisionRecall]) -> String {
    let point = |p: &PrecisionRecall| {
        let (x, y) = at(p.recall, p.precision);
        format!("{x:.1},{y:.1}")
    };
    curve.iter().map(point).collect::<Vec<_>>().join(" ")
}

fn best(curve: &[PrecisionRecall]) -> Option<&PrecisionRecall> {
    curve.iter().max_by(|a, b| a.f.total_cmp(&b.f))
}

/// Bins of a drawn histogram.
const BINS: usize = 48;

/// The shares of errors by size, one line of steps a model, up to where 99 of 100 lie; what is larger counts in the last bin.
pub(super) fn histograms(label: &str, models: &[&Histogram]) -> Markup {
    let Some(first) = models.first() else { return PreEscaped(String::new()) };
    let merged = models.iter().map(|histogram| bins_of(histogram)).max().unwrap_or(1).div_ceil(BINS);
    let shares: Vec<Vec<f64>> = models.iter().map(|histogram| shares(histogram, merged)).collect();
    let most = shares.iter().flatten().copied().fold(0.0, f64::max).max(1e-9);
    let largest = (BINS * merged) as f64 * first.width();
    let x: Vec<(f64, String)> =
        (0..=4).map(|i| f64::from(i) / 4.0).map(|share| (share, short(share * largest))).collect();
    let y = [0.0, 0.5, 1.0].map(|share| (share, format!("{:.0} %", 100.0 * share * most)));
    let content = html! {
        @for (i, shares) in shares.iter().enumerate() {
            polyline class={ "curve stroke-" (i % SERIES) } points=(steps(shares, most)) {}
        }
    };
    frame(&x, &y, (label, "share of pixels"), content)
}

/// How many bins hold 99 of 100 errors.
fn bins_of(histogram: &Histogram) -> usize {
    let (mut seen, all) = (0, histogram.counts().iter().sum::<u64>());
    let bins = histogram.counts().iter().take_while(|count| {
        seen += **count;
        100 * seen < 99 * all
    });
    bins.count() + 1
}

/// The share of all errors in each drawn bin, which is so many of the histogram's.
fn shares(histogram: &Histogram, merged: usize) -> Vec<f64> {
    let all = histogram.counts().iter().sum::<u64>().max(1) as f64;
    let mut shares = vec![0.0; BINS];
    for (i, count) in histogram.counts().iter().enumerate() {
        shares[(i / merged).min(BINS - 1)] += *count as f64 / all;
    }
    shares
}

/// At most two digits after the point, and no more zeros than needed.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn steps(shares: &[f64], most: f64) -> String {
    let bins = shares.len() as f64;
    let bin = |(i, share): (usize, &f64)| {
        let (x0, y) = at(i as f64 / bins, share / most);
        let (x1, _) = at((i + 1) as f64 / bins, 0.0);
        format!("{x0:.1},{y:.1} {x1:.1},{y:.1}")
    };
    shares.iter().enumerate().map(bin).collect::<Vec<_>>().join(" ")
}

/// The share of each class's pixels that went to each class, darker for more.
pub(super) fn matrix(classes: &[String], confusion: &Confusion) -> Markup {
    let share = |label: usize, predicted: usize| {
        confusion.count(label, predicted) as f64 / confusion.labelled(label).max(1) as f64
    };
    html! {
        div.scroll {
            table.matrix {
                thead { tr { th { "label ╲ prediction" } @for name in classes { th.turned { span { (name) } } } } }
                tbody {
                    @for (label, name) in classes.iter().enumerate() {
                        tr {
                            th { (name) }
                            @for predicted in 0..classes.len() {
                                @let share = share(label, predicted);
                                td style=(format!("--share:{share:.3}")) title=(format!("{} pixels", confusion.count(label, predicted))) {
                                    @if share >= 0.005 { (format!("{:.0}", 100.0 * share)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
