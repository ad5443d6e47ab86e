//! Losses and metrics equal the released code's.

use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tadformer::loss::MultiTaskLoss;
use tadformer::metrics::{Meter, PASCAL_SINGLE_TASK, Scores, delta_m};
use tadformer::{Task, TaskSet};

const TASKS: &str = "semseg=21,human_parts=7,sal=1,normals=3,depth=1,edge=1";

struct Golden {
    tensors: HashMap<String, Tensor>,
    metrics: Value,
    losses: Value,
}

fn golden() -> Golden {
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let json = |key: &str| serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    Golden { tensors, metrics: json("metrics"), losses: json("losses") }
}

impl Golden {
    fn batch<'a>(&'a self, batch: usize, task: &Task) -> (&'a Tensor, &'a Tensor) {
        let get = |what| &self.tensors[&format!("batch.{batch}.{what}.{}", task.name)];
        (get("logits"), get("label"))
    }

    fn scores(&self, task: &Task, batches: &[usize]) -> Scores {
        let mut meter = Meter::new(task);
        for batch in batches {
            let (logits, label) = self.batch(*batch, task);
            meter.update(logits, label).unwrap();
        }
        meter.scores()
    }
}

fn close(got: f64, want: &Value) {
    let want = want.as_f64().unwrap();
    assert!((got - want).abs() <= 1e-5 * want.abs(), "{got} is not {want}");
}

#[test]
fn losses_and_their_weighted_total() {
    let (golden, tasks) = (golden(), TASKS.parse::<TaskSet>().unwrap());
    for batch in 0..2 {
        let labelled = tasks.iter().map(|task| {
            let (logits, label) = golden.batch(batch, task);
            (task, logits, label)
        });
        let report = MultiTaskLoss::new(&tasks).forward(labelled).unwrap();
        for (task, loss) in tasks.iter().zip(report.values().unwrap()) {
            close(loss, &golden.losses[batch][&task.name]);
        }
        close(f64::from(report.total.to_scalar::<f32>().unwrap()), &golden.losses[batch]["total"]);
    }
}

#[test]
fn metrics_over_both_batches() {
    let golden = golden();
    let figures = [
        ("semseg=21", "miou", None),
        ("human_parts=7", "miou", None),
        ("sal=1", "miou", Some("max_f")),
        ("normals=3", "mean_degrees", None),
        ("depth=1", "rmse", Some("log_rmse")),
    ];
    for (task, primary, other) in figures {
        let task: Task = task.parse().unwrap();
        let (scores, want) = (golden.scores(&task, &[0, 1]), &golden.metrics[&task.name]);
        close(scores.primary.value.unwrap(), &want[primary]);
        if let Some(other) = other {
            close(scores.others[0].value.unwrap(), &want[other]);
        }
        for (class, iou) in want["iou"].as_array().into_iter().flatten().enumerate() {
            close(scores.others[class].value.unwrap(), iou);
        }
    }
}

#[test]
fn delta_m_as_the_released_code_computes_it() {
    let golden = golden();
    let gains = PASCAL_SINGLE_TASK.iter().map(|(name, reference)| {
        let task: TaskSet = TASKS.parse().unwrap();
        let primary = golden.scores(task.get(name).unwrap(), &[0, 1]).primary;
        let reference = if primary.higher_is_better { reference / 100.0 } else { *reference };
        (primary.value.unwrap(), reference, primary.higher_is_better)
    });
    close(delta_m(gains).unwrap(), &golden.metrics["delta_m"]["value"]);
}
