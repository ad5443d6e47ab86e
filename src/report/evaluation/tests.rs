use super::*;
use candle_core::{Device, Tensor};

fn map(values: &[f32], channels: usize) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap().reshape((1, channels, 1, values.len() / channels)).unwrap()
}

/// What a meter of this task makes of outputs beside a label.
fn measured(task: &str, outputs: &[f32], label: &[f32]) -> EvaluatedTask {
    let task: Task = task.parse().unwrap();
    let mut meter = Meter::new(&task);
    meter.update(&map(outputs, task.outputs()), &map(label, 1)).unwrap();
    EvaluatedTask::of_meter(&task, &meter, &Classes::new(["floor", "<cat>"]))
}

fn report() -> EvaluationReport {
    // Four pixels, of three classes: floor, floor, cat, cat; the scores of floor, cat and dog.
    let semseg = |hit| measured("semseg=3", &[1., 1., hit, 0., 0., 0., 0.5, 1., 0., 0., 0., 0.], &[0., 0., 1., 1.]);
    let edge = |score| {
        let mut task = measured("edge=1", &[3., score, -3., -3.], &[1., 1., 0., 1.]);
        let (caption, png) = ("room & chair: 0.91".into(), b"png".to_vec());
        task.examples = vec![Example { caption, rank: Rank::Worst, png }];
        task
    };
    let depth = measured("depth=1", &[1.25, 2.5, 3.0], &[1.0, 2.0, 3.0]);
    let mut first = EvaluatedModel::new("first", vec![semseg(0.).reference(0.5), edge(-3.), depth.reference(0.5)]);
    (first.trained, first.adapter_bytes, first.seconds_per_image) = (Some(3_100_000), Some(12_500_000), Some(0.25));
    let second = EvaluatedModel::new("second", vec![semseg(1.).reference(0.5), edge(3.)]);
    EvaluationReport::new("Rooms, val", 12, "448 x 448").model(first).model(second)
}

#[test]
fn gains_are_over_the_references_and_none_where_one_lacks() {
    let report = report();
    assert_eq!(EvaluatedModel::new("none", vec![report.models[0].tasks[1].clone()]).delta_m(), None);
    let gain = report.models[0].delta_m().unwrap(); // edges have no reference
    // miou 2/3 of all right and no dog; rmse by hand.
    let (miou, rmse) = (2.0 / 3.0, (0.3125f64 / 3.0).sqrt());
    let want = ((miou - 0.5) / 0.5 + (0.5 - rmse) / 0.5) / 2.0;
    assert!((gain - want).abs() < 1e-12, "{gain} {want}");
}

#[test]
fn the_table_has_a_line_a_model_and_one_of_references() {
    let text = report().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[0].starts_with("Rooms, val: 12 images"));
    assert!(lines[3].contains("0.6667") && lines[3].contains("3.10 M") && lines[3].contains("12.5 MB"), "{text}");
    assert!(lines[4].contains("0.3889") && lines[4].contains('–'), "a model without depth has a dash: {text}");
    assert!(lines[5].starts_with("one model a task") && lines[5].contains("0.5000"), "{text}");
    let widths: Vec<usize> = lines[2..].iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "columns are aligned: {text}");
}

#[test]
fn markdown_has_every_task_and_no_broken_cell() {
    let text = report().markdown();
    for heading in ["# Rooms, val", "## semseg", "## edge", "## depth"] {
        assert!(text.contains(heading), "{text}");
    }
    let columns = |line: &str| line.matches('|').count();
    let mut tables = text.lines().filter(|line| line.starts_with('|')).peekable();
    let first = columns(tables.peek().unwrap());
    assert_eq!(tables.clone().take(5).filter(|line| columns(line) == first).count(), 5, "{text}");
}

#[test]
fn json_holds_the_figures_and_the_gain_and_no_picture() {
    let value = report().json();
    assert_eq!(value["models"][0]["tasks"][2]["scores"][0]["name"], "rmse");
    assert_eq!(value["models"][0]["tasks"][0]["kind"], "semseg");
    assert_eq!(value["models"][1]["delta_m"], report().models[1].delta_m().unwrap());
    assert!(!value.to_string().contains("png"));
}

#[test]
fn the_page_loads_nothing_escapes_names_and_shows_each_part() {
    let page = report().html();
    assert!(page.starts_with("<!DOCTYPE html>"));
    for outside in ["http://", "https://", "<script", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("&lt;cat&gt;") && !page.contains("<cat>") && page.contains("room &amp; chair"));
    assert!(
        page.contains("data:image/png;base64,cG5n") && page.contains("Worst images") && !page.contains("Best images")
    );
    assert_eq!(page.matches("<polyline").count(), 3, "two curves and one histogram");
    assert!(page.contains("66.7 %"), "two pixels of floor taken for three");
    assert!(page.contains("absent"), "a class that nothing shows");
    assert!(page.contains("<b>0.6667</b>") && !page.contains("<b>0.3889</b>"), "the better figure stands out");
}
