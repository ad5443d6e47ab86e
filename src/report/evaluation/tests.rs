use super::*;

fn report() -> EvaluationReport {
    let semseg = |value, hits| {
        let mut task = EvaluatedTask::new("semseg", TaskKind::Semseg, vec![Score::higher("miou", Some(value))]);
        let classes = ["floor", "<cat>", "dog"].map(str::to_owned).to_vec();
        task.confusion = Some(Confusion { classes, pixels: vec![vec![hits, 2, 0], vec![1, 4, 0], vec![0, 0, 0]] });
        task.reference(0.5)
    };
    let edge = |best| {
        let mut task = EvaluatedTask::new("edge", TaskKind::Edge, vec![Score::higher("ods_f", Some(best))]);
        task.curve = [(0.2, 0.5, 0.9), (0.5, 0.8, 0.6), (0.9, 1.0, 0.1)]
            .map(|(threshold, precision, recall)| CurvePoint { threshold, precision, recall })
            .to_vec();
        let png = b"png".to_vec();
        task.examples = vec![Example { caption: "room & chair: 0.91".into(), rank: Rank::Worst, png }];
        task
    };
    let mut depth = EvaluatedTask::new("depth", TaskKind::Depth, vec![Score::lower("rmse", Some(0.25))]);
    depth.errors = Some(Histogram { label: "error in metres".into(), width: 0.1, counts: vec![6, 3, 1] });
    let mut first = EvaluatedModel::new("first", vec![semseg(0.6, 8), edge(0.7), depth.reference(0.5)]);
    (first.trained, first.adapter_bytes, first.seconds_per_image) = (Some(3_100_000), Some(12_500_000), Some(0.25));
    let second = EvaluatedModel::new("second", vec![semseg(0.4, 6), edge(0.72)]);
    EvaluationReport::new("Rooms, val", 12, "448 x 448").model(first).model(second)
}

#[test]
fn gains_are_over_the_references_and_none_where_one_lacks() {
    let report = report();
    assert_eq!(report.models[0].delta_m(), None, "edges have no reference");
    let two = EvaluatedModel::new("two", report.models[0].tasks.iter().filter(|t| t.name != "edge").cloned().collect());
    let gain = two.delta_m().unwrap();
    assert!((gain - 0.35).abs() < 1e-12, "half of +20 % and +50 %: {gain}");
}

#[test]
fn the_table_has_a_line_a_model_and_one_of_references() {
    let text = report().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(lines[0].starts_with("Rooms, val: 12 images"));
    assert!(lines[3].contains("0.6000") && lines[3].contains("3.10 M") && lines[3].contains("12.5 MB"), "{text}");
    assert!(lines[4].contains("0.4000") && lines[4].contains('–'), "a model without depth has a dash: {text}");
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
    assert_eq!(value["models"][0]["tasks"][0]["scores"][0]["value"], 0.6);
    assert_eq!(value["models"][0]["tasks"][0]["kind"], "semseg");
    assert!(value["models"][1]["delta_m"].is_null());
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
    assert!(page.contains("72.7 %"), "8 hits of 8 + 2 + 1");
    assert!(page.contains("absent"), "a class that nothing shows");
    assert!(page.contains("<b>0.6000</b>") && page.contains("<b>0.7200</b>"), "the better figure stands out");
}

#[test]
fn classes_that_are_nowhere_have_no_iou() {
    let confusion = report().models[0].tasks[0].confusion.clone().unwrap();
    assert_eq!(confusion.iou(), [Some(8.0 / 11.0), Some(4.0 / 7.0), None]);
}
