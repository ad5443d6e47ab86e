//! Losses and metrics beside the released code's.

use super::golden::Golden;
use super::row::{FIGURE_LIMIT, Row};
use crate::loss::MultiTaskLoss;
use crate::metrics::{Meter, PASCAL_SINGLE_TASK, Scores, delta_m};
use crate::{Result, Task, TaskSet};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn compare(golden: &Golden, device: &Device) -> Result<Vec<Row>> {
    let (metrics, losses): (Value, Value) = (golden.json("metrics")?, golden.json("losses")?);
    let tasks: TaskSet = "semseg=21,human_parts=7,sal=1,normals=3,depth=1,edge=1".parse()?;
    let mut meters: Vec<(Task, Meter)> = tasks.iter().map(|task| (task.clone(), Meter::new(task))).collect();
    let mut rows = Vec::new();
    for (i, wanted) in losses.as_array().into_iter().flatten().enumerate() {
        let maps = tasks.iter().map(|task| batch(golden, i, task, device)).collect::<Result<Vec<_>>>()?;
        for ((_, meter), (logits, label)) in meters.iter_mut().zip(&maps) {
            meter.update(logits, label)?;
        }
        let labelled = tasks.iter().zip(&maps).map(|(task, (logits, label))| (task, logits, label));
        let report = MultiTaskLoss::new(&tasks).forward(labelled)?;
        for ((name, _), loss) in report.tasks.iter().zip(report.values()?) {
            rows.push(row(format!("batch.{i}.loss.{name}"), loss, &wanted[name]));
        }
        let total = f64::from(report.total.to_scalar::<f32>()?);
        rows.push(row(format!("batch.{i}.loss.total"), total, &wanted["total"]));
    }
    let scores: BTreeMap<String, Scores> =
        meters.into_iter().map(|(task, meter)| (task.name, meter.scores())).collect();
    rows.extend(figures(&scores, &metrics));
    rows.push(row("delta_m".into(), gain(&scores), &metrics["delta_m"]["value"]));
    Ok(rows)
}

fn batch(golden: &Golden, i: usize, task: &Task, device: &Device) -> Result<(Tensor, Tensor)> {
    let get =
        |what| -> Result<Tensor> { Ok(golden.get(&format!("batch.{i}.{what}.{}", task.name))?.to_device(device)?) };
    Ok((get("logits")?, get("label")?))
}

fn figures(scores: &BTreeMap<String, Scores>, metrics: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for (task, theirs, ours) in [
        ("semseg", "miou", "miou"),
        ("human_parts", "miou", "miou"),
        ("sal", "miou", "max_iou"),
        ("sal", "max_f", "max_f"),
        ("normals", "mean_degrees", "mean_degrees"),
        ("depth", "rmse", "rmse"),
        ("depth", "log_rmse", "log_rmse"),
    ] {
        rows.push(row(format!("{task}.{theirs}"), scores[task].get(ours).unwrap_or(f64::NAN), &metrics[task][theirs]));
        let classes = metrics[task]["iou"].as_array().filter(|_| theirs == "miou").into_iter().flatten();
        for (class, want) in classes.enumerate() {
            let got = scores[task].get(&format!("iou_{class}")).unwrap_or(f64::NAN);
            rows.push(row(format!("{task}.iou.{class}"), got, want));
        }
    }
    rows
}

/// Over PASCAL's single-task references, whose shares are percentages.
fn gain(scores: &BTreeMap<String, Scores>) -> f64 {
    let tasks = PASCAL_SINGLE_TASK.iter().filter_map(|(name, reference)| {
        let primary = &scores.get(*name)?.primary;
        let reference = if primary.higher_is_better { reference / 100.0 } else { *reference };
        Some((primary.value?, reference, primary.higher_is_better))
    });
    delta_m(tasks).unwrap_or(f64::NAN)
}

fn row(name: String, got: f64, want: &Value) -> Row {
    let want = want.as_f64().unwrap_or(f64::NAN);
    Row { name, error: (got - want).abs() / want.abs().max(1e-30), torch: None, limit: FIGURE_LIMIT }
}
