//! Values by hand.

use super::*;
use candle_core::Device;

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

#[test]
fn miou_counts_an_absent_class_as_zero() {
    // Predicted 0, 1, 1 with labels 0, 1, 0, and one ignored pixel: IoU 1/2, 1/2 and 0 of three classes.
    let outputs = [9., 0., 0., 0., /* class 1 */ 0., 9., 9., 9., /* class 2 */ 1., 1., 1., 1.];
    let scores = scores("semseg=3", &outputs, &[0., 1., 0., 255.]);
    close(scores.primary.value, 1.0 / 3.0);
    close(scores.others[1].value, 0.5);
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
    close(scores.others[0].value, ((8100.0 + 2025.0f64) / 2.0).sqrt());
    assert!((scores.others[1].value.unwrap() - 45.0).abs() < 0.02);
    close(scores.others[4].value, 0.0);
}

#[test]
fn depth_errors_over_valid_pixels() {
    let scores = scores("depth=1", &[1., -3., 9.], &[3., 1., 255.]);
    close(scores.primary.value, ((4.0 + 1.0f64) / 2.0).sqrt());
    close(scores.others[0].value, ((3f64.ln().powi(2) + 1e-9f64.ln().powi(2)) / 2.0).sqrt());
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
        constant.scores([&label]).unwrap().primary.value
    };
    close(constant("semseg=2", &[1., 1., 0., 255.]), (2.0 / 3.0) / 2.0);
    close(constant("depth=1", &[1., 3.]), 1.0);
    close(constant("normals=3", &[1., 0., 0., 1., 0., 0.]), 45.0);
    close(constant("sal=1", &[1., 1., 1., 0.]), 0.75);
    close(constant("edge=1", &[1., 0., 0., 0.]), 2.0 / 5.0);
}
