//! Every golden tensor within its limit, by the fused and by the composed definitions: outputs, stages, gradients, features of three
//! formats, odd sizes, losses and metrics, edges.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device};
use std::path::Path;
use tadformer::ops::Definition;
use tadformer::parity::compare;

fn passes(name: &str, at_least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    for definition in Definition::ALL {
        let rows = definition.run(|| compare(&path, DType::F32, &Device::Cpu)).unwrap();
        assert!(rows.len() >= at_least, "{name}: {} rows", rows.len());
        let above: Vec<String> = rows.iter().filter(|row| !row.passes()).map(ToString::to_string).collect();
        assert!(above.is_empty(), "{name}, {}:\n{}", definition.name(), above.join("\n"));
    }
}

#[test]
fn stages_outputs_and_gradients() {
    passes("tadformer_w4_64.safetensors", 250);
}

#[test]
fn sizes_that_neither_patch_nor_window_divides() {
    passes("tadformer_w4_odd.safetensors", 200);
}

#[test]
fn window_seven_with_two_prompts_a_task() {
    passes("tadformer_w7_224.safetensors", 200);
}

#[test]
fn the_released_models_variants() {
    passes("released_w4_64.safetensors", 2);
}

#[test]
fn one_swin_in_three_formats_at_even_and_odd_sizes() {
    passes("swin_w4_128", 108);
    passes("swin_w7_224", 60);
}

#[test]
fn losses_and_metrics() {
    passes("metrics.safetensors", 50);
}

#[cfg(feature = "data")]
#[test]
fn data_sets_in_their_published_layouts() {
    passes("data/pascal_mt", 52);
    passes("data/nyud_mt", 39);
}

#[test]
fn edges_as_the_benchmark_scores_them() {
    // 11 truths, 11 thinned and 8 suppressed maps; 19 counts and 4 figures at each of 3 distances.
    passes("data/ods.safetensors", 30 + 3 * (19 + 8));
}

#[test]
fn transforms_step_by_step() {
    passes("data/transforms.safetensors", 90);
}

#[test]
fn what_is_no_golden_file_is_refused() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (path, words) in [
        (golden.join("swin_w4_128/timm/model.safetensors"), "without a known `kind`"),
        (golden.join("swin_w4_128/timm"), "without expected.safetensors"),
        (golden.join("missing"), "cannot read"),
    ] {
        let message = compare(path, DType::F32, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
