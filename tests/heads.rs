//! Decoders: one choice for all tasks, or a task's own.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::{builder, distance, images, randomise_b};
use std::path::Path;
use tadformer::checkpoint::Checkpoint;
use tadformer::heads::{HeadConfig, HrNetConfig};
use tadformer::layers::Mode;
use tadformer::model::{OpenOptions, ReleasedFile};
use tadformer::params::{Group, Role};
use tadformer::swin::names;
use tadformer::{TADFormer, TADFormerBuilder};

fn own() -> HeadConfig {
    HrNetConfig::new([1, 3, 5, 2]).into()
}

/// Two tasks with decoders of different sizes.
fn two() -> TADFormerBuilder {
    builder().tasks("semseg=7,depth=1".parse().unwrap()).own_head("depth", own())
}

fn outputs(model: &TADFormer) -> Vec<(String, Tensor)> {
    let outputs = model.forward(&images(1, 44, 60).unwrap(), Mode::Eval).unwrap();
    outputs.iter().map(|(task, output)| (task.name().to_owned(), output.clone())).collect()
}

#[test]
fn each_task_has_the_decoder_of_its_sizes() {
    // Projections of widths 16, 32, 64, 64; then H to 4H with a bias and a norm, and 4H to the outputs with a bias.
    let parameters = |channels: [usize; 4], outputs: usize| {
        let sum: usize = channels.iter().sum();
        let projections: usize = channels.iter().zip([16, 32, 64, 64]).map(|(channels, width)| channels * width).sum();
        projections + 4 * sum * (sum + 3) + outputs * (4 * sum + 1)
    };
    let table = TADFormer::count(two().config()).unwrap();
    let decoders = table.groups().filter(|(group, _)| matches!(group, Group::Projections | Group::Heads));
    let trained: usize = decoders.map(|(_, count)| count.trained).sum();
    assert_eq!(trained, parameters([2, 2, 4, 4], 7) + parameters([1, 3, 5, 2], 1));
    let model = two().build().unwrap();
    let trained: usize = model.ledger().trained().iter().map(|entry| entry.tensor().elem_count()).sum();
    assert_eq!(trained, table.trained());
    let shapes: Vec<_> = outputs(&model).into_iter().map(|(_, output)| output.dims().to_vec()).collect();
    assert_eq!(shapes, [vec![1, 7, 44, 60], vec![1, 1, 44, 60]]);
}

#[test]
fn a_tasks_own_decoder_leaves_the_others_outputs_as_the_reference_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tadformer_w4_64.safetensors");
    let golden = Checkpoint::open(&path).unwrap();
    let load = |name: &str| golden.load(name, DType::F32, &Device::Cpu).unwrap();
    let tasks = "semseg=5,normals=3,sal=1,human_parts=4".parse().unwrap();
    let config = ReleasedFile::open(&path, Some(&tasks)).unwrap().config().clone();
    let state = golden.under("state.");
    let model = TADFormerBuilder::from_config(config).own_head("sal", own()).build_on(state.clone()).unwrap();
    let (_, state, _) = names::canonical(state).unwrap();
    for entry in model.ledger().entries().into_iter().filter(|entry| !entry.name.starts_with("heads.sal.")) {
        let (Role::Trained(var) | Role::Statistics(var)) = entry.role else { continue };
        var.set(&state.load(&entry.name, DType::F32, &Device::Cpu).unwrap()).unwrap();
    }
    let outputs = model.forward(&load("input"), Mode::Eval).unwrap();
    for (task, got) in outputs.iter() {
        let error = distance(got, &load(&format!("output.{}", task.name()))).unwrap();
        assert_eq!(error < 1e-4, task.name() != "sal", "{task}: {error}");
    }
}

#[test]
fn an_adapter_keeps_each_tasks_decoder() {
    let folder = tempfile::tempdir().unwrap();
    let model = two().build().unwrap();
    randomise_b(&model).unwrap();
    let (adapter, full) = (folder.path().join("adapter.safetensors"), folder.path().join("full.safetensors"));
    model.save_adapter(&adapter).unwrap();
    model.save_full(&full).unwrap();
    for path in [adapter, full] {
        let opened = TADFormer::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(opened.config(), model.config());
        for ((task, got), (_, want)) in outputs(&opened).iter().zip(outputs(&model)) {
            assert_eq!(distance(got, &want).unwrap(), 0.0, "{task}");
        }
        let other = two().own_head("semseg", own()).build().unwrap();
        let message = other.load_adapter(&path).unwrap_err().to_string();
        assert!(message.contains("own_heads.semseg: the adapter has none, the model {"), "{message}");
    }
}

#[test]
fn a_decoder_comes_and_goes_with_its_task() {
    let model = two().build().unwrap();
    let without = model.with_tasks("semseg=7,sal=1".parse().unwrap(), 1).unwrap();
    assert!(without.config().own_heads.is_empty());
    let with = model.with_tasks("sal=1,depth=1".parse().unwrap(), 1).unwrap();
    assert_eq!((with.config().head_of("depth"), with.config().head_of("sal")), (&own(), &model.config().head));
    let weights = |model: &TADFormer| {
        let of_depth = model.ledger().entries().into_iter().filter(|entry| entry.name.starts_with("heads.depth."));
        of_depth.map(|entry| (entry.name.clone(), entry.tensor().clone())).collect::<Vec<_>>()
    };
    for ((name, got), (_, want)) in weights(&with).iter().zip(weights(&model)) {
        assert_eq!(distance(got, &want).unwrap(), 0.0, "{name}");
    }
}

#[test]
fn a_decoder_that_cannot_work_is_refused_by_its_place() {
    let message = |builder: TADFormerBuilder| builder.build().unwrap_err().to_string();
    let short = || HrNetConfig::new([1, 2]);
    assert!(message(two().head(short())).starts_with("`head.channels`"));
    assert!(message(two().own_head("depth", short())).starts_with("`own_heads.depth.channels`"));
    let nobodys = message(two().own_head("sal", own()));
    assert!(nobodys.starts_with("`own_heads`: expected names of semseg=7,depth=1, got sal"), "{nobodys}");
}

#[test]
fn a_kind_of_decoder_that_is_not_known_or_has_other_fields_is_refused() {
    let read = |text: &str| serde_json::from_str::<HeadConfig>(text).map_err(|e| e.to_string());
    assert_eq!(read(r#"{"kind":"hrnet","channels":[1,3,5,2]}"#), Ok(own()));
    for (text, words) in [
        (r#"{"kind":"segformer","channels":[1]}"#, "unknown variant `segformer`, expected `hrnet`"),
        (r#"{"kind":"hrnet","channels":[1],"depth":2}"#, "unknown field `depth`"),
        (r#"{"kind":"hrnet"}"#, "missing field `channels`"),
        (r#"{"channels":[1]}"#, "missing field `kind`"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains(words), "{message}");
    }
}
