//! Values by hand.

use super::*;
use crate::sample::IGNORE;
use crate::task::{Task, TaskKind};
use candle_core::{DType, Device, Tensor};

fn map(values: &[f32], channels: usize) -> Tensor {
    Tensor::new(values, &Device::Cpu).and_then(|t| t.reshape((1, channels, 1, values.len() / channels))).unwrap()
}

fn scores(task: &str, outputs: &[f32], label: &[f32]) -> Scores {
    let task: Task = task.parse().unwrap();
    let mut meter = Meter::new(&task);
    meter.update(&map(outputs, task.outputs), &map(label, task.kind.label_channels())).unwrap();
    meter.scores()
}

fn close(got: Option<f64>, want: f64) {
    let got = got.unwrap();
    assert!((got - want).abs() < 1e-6 * want.abs().max(1.0), "{got} is not {want}");
}

/// The primary figure of a constant prediction on one label.
fn measured(constant: &ConstantPrediction, label: &Tensor) -> Option<f64> {
    let mut meter = constant.meter().unwrap();
    meter.update(label).unwrap();
    meter.scores().primary.value
}

#[test]
fn miou_counts_an_absent_class_as_zero() {
    // Predicted 0, 1, 1 with labels 0, 1, 0, and one ignored pixel: IoU 1/2, 1/2 and 0 of three classes.
    let outputs = [9., 0., 0., 0., /* class 1 */ 0., 9., 9., 9., /* class 2 */ 1., 1., 1., 1.];
    let scores = scores("semseg=3", &outputs, &[0., 1., 0., 255.]);
    close(scores.primary.value, 1.0 / 3.0);
    close(scores.get("iou_1"), 0.5);
    close(scores.get("pixel_accuracy"), 2.0 / 3.0);
    // Half of class 0 and all of class 1; class 2 is not labelled.
    close(scores.get("mean_accuracy"), 0.75);
}

#[test]
fn saliency_takes_the_best_threshold_and_agrees_on_nothing() {
    // Probabilities 0.5 and 0.88: at thresholds above 0.5 only the second pixel is chosen.
    close(scores("sal=1", &[0., 2.], &[0., 1.]).primary.value, 1.0);
    close(scores("sal=1", &[-9., -9.], &[0., 0.]).primary.value, 1.0);
    close(scores("sal=1", &[9., 9.], &[0., 1.]).primary.value, 0.5);
}

#[test]
fn angles_of_normals() {
    // A right angle and a half of it; lengths do not matter, the ignored pixel neither.
    let outputs = [2., 0., 7., /* y */ 0., 3., 7., /* z */ 0., 3., 7.];
    let label = [0., 0., 255., /* y */ 1., 1., 255., /* z */ 0., 0., 255.];
    let scores = scores("normals=3", &outputs, &label);
    close(scores.primary.value, 67.5);
    close(scores.get("rmse_degrees"), ((8100.0 + 2025.0f64) / 2.0).sqrt());
    assert!((scores.get("median_degrees").unwrap() - 45.0).abs() < 0.02);
    close(scores.get("below_30"), 0.0);
}

#[test]
fn depth_errors_over_valid_pixels() {
    let scores = scores("depth=1", &[1., -3., 9.], &[3., 1., 255.]);
    close(scores.primary.value, ((4.0 + 1.0f64) / 2.0).sqrt());
    close(scores.get("log_rmse"), ((3f64.ln().powi(2) + 1e-9f64.ln().powi(2)) / 2.0).sqrt());
}

#[test]
fn relative_errors_of_depth() {
    // Half, just right, 1.5 and 1.2 times as far.
    let scores = scores("depth=1", &[1., 2., 6., 6.], &[2., 2., 4., 5.]);
    close(scores.get("abs_rel"), (0.5 + 0.0 + 0.5 + 0.2) / 4.0);
    close(scores.get("sq_rel"), (0.5 + 0.0 + 1.0 + 0.2) / 4.0);
    close(scores.get("delta_1"), 2.0 / 4.0);
    close(scores.get("delta_2"), 3.0 / 4.0);
    close(scores.get("delta_3"), 3.0 / 4.0);
    let logs = [0.5f64.ln(), 0.0, 1.5f64.ln(), 1.2f64.ln()];
    let mean = logs.iter().sum::<f64>() / 4.0;
    close(scores.get("si_log_rmse"), (logs.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 4.0).sqrt());
}

#[test]
fn a_scale_changes_nothing_of_what_is_scale_invariant() {
    let (label, scaled) = ([1., 2.5, 4.], [1.7, 4.25, 6.8]);
    assert!(scores("depth=1", &scaled, &label).get("si_log_rmse").unwrap() < 1e-6);
    close(scores("depth=1", &scaled, &label).get("log_rmse"), 1.7f64.ln());
}

#[test]
fn classes_go_by_their_names_and_are_taken_for_each_other() {
    let task: Task = "semseg=2".parse().unwrap();
    let mut meter = Meter::new(&task).with_class_names(["cat", "dog"]).unwrap();
    meter.update(&map(&[9., 0., 0., 0., 9., 9.], 2), &map(&[0., 0., 1.], 1)).unwrap();
    close(meter.scores().get("iou_cat"), 0.5);
    let confusion = meter.confusion().unwrap();
    assert_eq!([0, 1].map(|label| [0, 1].map(|predicted| confusion.count(label, predicted))), [[1, 1], [0, 1]]);
    assert_eq!((confusion.labelled(0), confusion.predicted(1), confusion.count(2, 0)), (2, 2, 0));
    for (task, names) in [("semseg=3", vec!["cat"]), ("depth=1", vec!["near"])] {
        let message = Meter::new(&task.parse().unwrap()).with_class_names(names).unwrap_err().to_string();
        assert!(message.contains("class names"), "{message}");
    }
}

#[test]
fn what_a_report_draws() {
    let meter = |task: &str, outputs: &[f32], label: &[f32]| {
        let task: Task = task.parse().unwrap();
        let mut meter = Meter::new(&task);
        meter.update(&map(outputs, task.outputs), &map(label, task.kind.label_channels())).unwrap();
        meter
    };
    // Chosen up to 0.5: both, one of which is an edge; above: the edge alone.
    for task in ["edge=1", "sal=1"] {
        let curve = meter(task, &[0., 2.], &[0., 1.]).curve().unwrap();
        let at = |t: f64| curve.iter().find(|p| (p.threshold.unwrap() - t).abs() < 1e-9).unwrap();
        assert_eq!((at(0.4).precision, at(0.4).recall, at(0.6).precision), (0.5, 1.0, 1.0), "{task}");
    }
    let depth = meter("depth=1", &[1.0, 9.0], &[1.01, 1.0]);
    let errors = depth.errors().unwrap();
    assert_eq!((errors.counts()[1], *errors.counts().last().unwrap(), errors.width()), (1, 1, 0.005));
    assert!(depth.curve().is_none() && depth.confusion().is_none());
}

#[test]
fn edges_take_the_best_threshold() {
    // Chosen above 0.5: one hit, one miss of two edges -> F = 2 / (2 + 1); choosing all: 4 / (2 + 4).
    close(scores("edge=1", &[2., -1., -2., -2.], &[1., 1., 0., 0.]).primary.value, 1.0);
    close(scores("edge=1", &[2., -3., -2., -2.], &[1., 1., 0., 0.]).primary.value, 2.0 / 3.0);
}

#[test]
fn nothing_seen_gives_no_figure() {
    for task in ["semseg=3", "sal=1", "normals=3", "depth=1", "edge=1"] {
        let task: Task = task.parse().unwrap();
        let (outputs, label) = (vec![0.5; task.outputs], vec![IGNORE; task.kind.label_channels()]);
        let mut meter = Meter::new(&task);
        meter.update(&map(&outputs, task.outputs), &map(&label, task.kind.label_channels())).unwrap();
        assert_eq!(meter.scores().primary.value, None, "{task}");
    }
}

#[test]
fn a_map_of_another_shape_is_refused() {
    let mut meter = Meter::new(&"semseg=3".parse().unwrap());
    let message = meter.update(&map(&[0.; 4], 2), &map(&[0.; 2], 1)).unwrap_err().to_string();
    assert!(message.contains("outputs of semseg") && message.contains("[1, 3, 1, 2]"), "{message}");
}

#[test]
fn constants_are_what_they_say() {
    let constant = |task: &str, label: &[f32]| {
        let task: Task = task.parse().unwrap();
        let label = map(label, task.kind.label_channels());
        let mut constant = ConstantPrediction::new(&task);
        constant.observe(&label).unwrap();
        measured(&constant, &label)
    };
    close(constant("semseg=2", &[1., 1., 0., 255.]), (2.0 / 3.0) / 2.0);
    close(constant("depth=1", &[1., 3.]), 1.0);
    close(constant("normals=3", &[1., 0., 0., 1., 0., 0.]), 45.0);
    close(constant("sal=1", &[1., 1., 1., 0.]), 0.75);
    close(constant("edge=1", &[1., 0., 0., 0.]), 2.0 / 5.0);
}

/// Outputs and a label of `[2, c, 3, 4]` for a task, drawn from a seed; the first pixel of each image is ignored.
fn drawn(task: &Task, seed: u64) -> (Tensor, Tensor) {
    use rand::{Rng as _, SeedableRng as _};
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let c = task.kind.label_channels();
    let label = (0..2 * c * 12).map(|i| match task.kind {
        _ if i % 12 == 0 => IGNORE,
        TaskKind::Normals | TaskKind::Depth => rng.random_range(0.1..3.0f32),
        _ => rng.random_range(0..task.outputs.max(2)) as f32,
    });
    let label = Tensor::from_iter(label.collect::<Vec<_>>(), &Device::Cpu).unwrap().reshape((2, c, 3, 4)).unwrap();
    (crate::ops::finite_difference::normal(seed, &[2, task.outputs, 3, 4]).unwrap(), label)
}

const KINDS: [&str; 6] = ["semseg=3", "human_parts=7", "sal=1", "normals=3", "depth=1", "edge=1"];

#[test]
fn image_by_image_equals_all_at_once() {
    for task in KINDS.map(|task| task.parse::<Task>().unwrap()) {
        let ((outputs, label), (mut whole, mut parts)) = (drawn(&task, 1), (Meter::new(&task), Meter::new(&task)));
        whole.update(&outputs, &label).unwrap();
        for i in 0..2 {
            parts.update(&outputs.narrow(0, i, 1).unwrap(), &label.narrow(0, i, 1).unwrap()).unwrap();
        }
        assert_eq!(whole.scores(), parts.scores(), "{task}");
    }
}

#[test]
fn two_meters_merged_are_one_that_saw_it_all() {
    for task in KINDS.map(|task| task.parse::<Task>().unwrap()) {
        let mut meters = [Meter::new(&task), Meter::new(&task), Meter::new(&task)];
        for (seed, half) in [(5, 1), (6, 2)] {
            let (outputs, label) = drawn(&task, seed);
            meters[0].update(&outputs, &label).unwrap();
            meters[half].update(&outputs, &label).unwrap();
        }
        let [whole, mut first, second] = meters;
        first.merge(&second).unwrap();
        let (merged, whole) = (first.scores(), whole.scores());
        for score in std::iter::once(&whole.primary).chain(&whole.others) {
            close(merged.get(&score.name), score.value.unwrap());
        }
    }
    let mut depth = Meter::new(&"depth=1".parse().unwrap());
    let message = depth.merge(&Meter::new(&"sal=1".parse().unwrap())).unwrap_err().to_string();
    assert!(message.contains("sal=1") && message.contains("depth=1"), "{message}");
}

#[test]
fn an_image_that_is_ignored_everywhere_leaves_every_figure_as_it_was() {
    for task in KINDS.map(|task| task.parse::<Task>().unwrap()) {
        let (outputs, label) = drawn(&task, 7);
        let mut alone = Meter::new(&task);
        alone.update(&outputs, &label).unwrap();
        let nothing = label.affine(0.0, f64::from(IGNORE)).unwrap();
        for order in [[&label, &nothing], [&nothing, &label]] {
            let mut meter = Meter::new(&task);
            order.into_iter().for_each(|label| meter.update(&outputs, label).unwrap());
            assert_eq!(meter.scores(), alone.scores(), "{task}");
            assert_eq!(meter.curve(), alone.curve(), "{task}");
        }
        // In one batch with others too.
        let mut meter = Meter::new(&task);
        let twice = |a: &Tensor, b: &Tensor| Tensor::cat(&[a, b], 0).unwrap();
        meter.update(&twice(&outputs, &outputs), &twice(&label, &nothing)).unwrap();
        assert_eq!(meter.scores(), alone.scores(), "{task}");
    }
}

#[test]
fn labels_of_bytes_count_as_labels_of_floats() {
    for task in ["semseg=3", "human_parts=7", "sal=1", "edge=1"].map(|task| task.parse::<Task>().unwrap()) {
        let (outputs, label) = drawn(&task, 8);
        let (mut floats, mut bytes) = (Meter::new(&task), Meter::new(&task));
        floats.update(&outputs, &label).unwrap();
        bytes.update(&outputs, &label.to_dtype(DType::U8).unwrap()).unwrap();
        assert_eq!(bytes.scores(), floats.scores(), "{task}");
    }
}

#[test]
fn a_label_that_is_no_class_is_named() {
    let task: Task = "semseg=3".parse().unwrap();
    for (value, word) in [(3f32, "got 3"), (-1.0, "got -1"), (0.5, "got 0.5"), (f32::NAN, "got NaN")] {
        let label = map(&[value], 1);
        let message = Meter::new(&task).update(&map(&[0.; 3], 3), &label).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("semseg"), "{message}");
        let message = ConstantPrediction::new(&task).observe(&label).unwrap_err().to_string();
        assert!(message.contains(word) && message.contains("semseg"), "{message}");
    }
}

#[test]
fn an_output_that_is_no_number_is_an_error() {
    for task in KINDS.map(|task| task.parse::<Task>().unwrap()) {
        let (outputs, label) = drawn(&task, 2);
        let message = Meter::new(&task).update(&(outputs * f64::NAN).unwrap(), &label).unwrap_err().to_string();
        assert!(message.contains(&task.name) && message.contains("not finite"), "{message}");
    }
}

#[test]
fn maps_without_pixels_change_nothing() {
    for task in KINDS.map(|task| task.parse::<Task>().unwrap()) {
        let (outputs, label) = drawn(&task, 3);
        let (outputs, label) = (outputs.narrow(3, 0, 0).unwrap(), label.narrow(3, 0, 0).unwrap());
        let mut meter = Meter::new(&task);
        meter.update(&outputs, &label).unwrap();
        assert_eq!(meter.scores(), Meter::new(&task).scores());
        ConstantPrediction::new(&task).observe(&label).unwrap();
    }
}

#[test]
fn a_constant_refuses_labels_of_another_task() {
    let mut constant = ConstantPrediction::new(&"depth=1".parse().unwrap());
    let message = constant.observe(&map(&[0.; 6], 3)).unwrap_err().to_string();
    assert!(message.contains("label of depth") && message.contains("[1, 3, 1, 2]"), "{message}");
}

#[test]
fn rare_edges_are_still_predicted() {
    // One edge in 200 pixels: predicting it everywhere gives F = 2 / 201, predicting none gives 0.
    let label: Vec<f32> = (0..200).map(|i| f32::from(u8::from(i == 0))).collect();
    let (label, mut constant) = (map(&label, 1), ConstantPrediction::new(&"edge=1".parse().unwrap()));
    constant.observe(&label).unwrap();
    close(measured(&constant, &label), 2.0 / 201.0);
}

#[test]
fn best_f_of_edges_as_counted_threshold_by_threshold() {
    let task: Task = "edge=1".parse().unwrap();
    let (outputs, label) = drawn(&task, 4);
    let values = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (scores, label_values) = (values(&outputs), values(&label));
    let f = |t: usize| {
        let (mut hits, mut wrong, mut missed) = (0.0, 0.0, 0.0);
        for (score, edge) in scores.iter().zip(&label_values).filter(|(_, edge)| **edge != f64::from(IGNORE)) {
            match (1.0 / (1.0 + (-score).exp()) > t as f64 / 100.0, *edge == 1.0) {
                (true, true) => hits += 1.0,
                (true, false) => wrong += 1.0,
                (false, true) => missed += 1.0,
                (false, false) => {}
            }
        }
        2.0 * hits / (2.0 * hits + wrong + missed)
    };
    let mut meter = Meter::new(&task);
    meter.update(&outputs, &label).unwrap();
    close(meter.scores().primary.value, (1..100).map(f).fold(0.0, f64::max));
}
