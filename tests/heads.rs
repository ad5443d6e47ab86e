//! Decoders: one choice for all tasks, or a task's own.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use common::{builder, distance, images, randomise_b};
use std::path::Path;
use tadformer::checkpoint::Checkpoint;
use tadformer::heads::{AsppConfig, HeadConfig, HrNetConfig, LinearConfig, SegFormerConfig};
use tadformer::layers::{Mode, TrainingPass};
use tadformer::model::{OpenOptions, ReleasedFile};
use tadformer::params::{Entry, Group, Role};
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
    let segformer = |channels| SegFormerConfig::new(channels);
    let aspp = || AsppConfig::new([1, 2, 1, 2]).width(3);
    let wrong: [(&str, HeadConfig); 12] = [
        ("`head.channels`", segformer(0).into()),
        ("`head.channels`", segformer(1 << 40).into()),
        ("`head.dropout`", segformer(2).dropout(1.0).into()),
        ("`head.dropout`", segformer(2).dropout(-0.1).into()),
        ("`head.dropout`", segformer(2).dropout(f64::NAN).into()),
        ("`head.channels`", AsppConfig::new([1, 2]).into()),
        ("`head.width`", aspp().width(usize::MAX).into()),
        ("`head.rates`", aspp().rates([]).into()),
        ("`head.rates`", aspp().rates([1, 0]).into()),
        ("`head.rates`", aspp().rates([1; 9]).into()),
        ("`head.rates`", aspp().rates([usize::MAX]).into()),
        ("`head.dropout`", aspp().dropout(1.5).into()),
    ];
    for (field, head) in wrong {
        let got = message(two().head(head));
        assert!(got.starts_with(field), "{field}: {got}");
    }
}

#[test]
fn a_kind_of_decoder_that_is_not_known_or_has_other_fields_is_refused() {
    let read = |text: &str| serde_json::from_str::<HeadConfig>(text).map_err(|e| e.to_string());
    assert_eq!(read(r#"{"kind":"hrnet","channels":[1,3,5,2]}"#), Ok(own()));
    for (text, words) in [
        (r#"{"kind":"unet","channels":[1]}"#, "unknown variant `unet`, expected one of `hrnet`, `hrnet-shared`, "),
        (r#"{"kind":"linear","channels":[1]}"#, "unknown field `channels`"),
        (r#"{"kind":"segformer","channels":[1],"dropout":0}"#, "invalid type: sequence, expected usize"),
        (r#"{"kind":"aspp","channels":[1],"width":2,"rates":[1]}"#, "missing field `dropout`"),
        (r#"{"kind":"hrnet","channels":[1],"depth":2}"#, "unknown field `depth`"),
        (r#"{"kind":"hrnet"}"#, "missing field `channels`"),
        (r#"{"channels":[1]}"#, "missing field `kind`"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains(words), "{message}");
    }
}

fn shared(channels: [usize; 4]) -> HeadConfig {
    HeadConfig::HrNetShared(HrNetConfig::new(channels))
}

/// Three tasks of which two share a layer.
fn sharing() -> TADFormerBuilder {
    let builder = builder().tasks("semseg=7,depth=1,sal=1".parse().unwrap());
    builder.head(shared([2, 2, 3, 1])).own_head("depth", SegFormerConfig::new(6))
}

/// One of each kind, small.
fn kinds() -> [HeadConfig; 5] {
    [
        own(),
        shared([1, 3, 5, 2]),
        SegFormerConfig::new(6).into(),
        AsppConfig::new([1, 2, 1, 2]).width(3).rates([1, 4]).into(),
        LinearConfig::default().into(),
    ]
}

const SHARED: &str = "heads.shared.hidden.weight";

fn entry(model: &TADFormer, name: &str) -> Option<Entry> {
    model.ledger().entries().into_iter().find(|entry| entry.name == name)
}

/// The gradients of a training step in which only these tasks' outputs count.
fn gradients(model: &TADFormer, tasks: &[&str]) -> GradStore {
    let pass = TrainingPass::seeded(1);
    let outputs = model.forward(&images(2, 44, 60).unwrap(), Mode::Train(&pass)).unwrap();
    let counted = outputs.iter().filter(|(task, _)| tasks.contains(&task.name()));
    let losses = counted.map(|(_, y)| y.sqr().unwrap().mean_all().unwrap());
    losses.reduce(|a, b| (a + b).unwrap()).unwrap().backward().unwrap()
}

#[test]
fn a_name_makes_a_decoder_of_the_published_sizes_and_an_unknown_one_is_refused() {
    for head in HeadConfig::published() {
        assert_eq!(head.name().parse::<HeadConfig>().unwrap(), head);
        let written = serde_json::to_value(&head).unwrap();
        assert_eq!(written["kind"], head.name());
    }
    let message = "unet".parse::<HeadConfig>().unwrap_err().to_string();
    assert!(
        message.starts_with("`head`: expected one of hrnet, hrnet-shared, segformer, aspp, linear, got unet"),
        "{message}"
    );
}

#[test]
fn each_kind_goes_through_a_file_and_is_the_same_with_its_weights_folded() {
    let folder = tempfile::tempdir().unwrap();
    for head in kinds() {
        let model = two().own_head("semseg", head.clone()).build().unwrap();
        randomise_b(&model).unwrap();
        let trained = gradients(&model, &["semseg", "depth"]);
        for entry in model.ledger().trained().into_iter().filter(|entry| entry.name.starts_with("heads.")) {
            assert!(trained.get(entry.tensor()).is_some(), "{} has no gradient", entry.name);
        }
        let path = folder.path().join(format!("{}.safetensors", head.name()));
        model.save_adapter(&path).unwrap();
        let opened = TADFormer::open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(opened.config(), model.config());
        let want = outputs(&model);
        for ((task, got), (_, want)) in outputs(&opened).iter().zip(&want) {
            assert_eq!(distance(got, want).unwrap(), 0.0, "{}: {task}", head.name());
        }
        let folded = model.merge().unwrap().forward(&images(1, 44, 60).unwrap()).unwrap();
        for ((task, got), (_, want)) in folded.iter().zip(&want) {
            assert!(distance(got, want).unwrap() < 1e-4, "{}: {task}", head.name());
        }
    }
}

#[test]
fn a_shared_layer_is_one_weight_that_gets_the_gradients_of_all_its_tasks() {
    let model = sharing().build().unwrap();
    randomise_b(&model).unwrap();
    let layer = entry(&model, SHARED).unwrap();
    assert_eq!((layer.group, layer.tensor().dims()), (Group::SharedHeads, &[32, 8][..]));
    for name in ["heads.semseg.hidden.weight", "heads.sal.hidden.weight"] {
        assert!(entry(&model, name).is_none(), "{name}");
    }
    assert!(entry(&model, "heads.depth.hidden.weight").is_some(), "a decoder of another kind has its own");
    let of = |tasks: &[&str]| gradients(&model, tasks).get(layer.tensor()).cloned();
    let [semseg, sal, all] = [&["semseg"][..], &["sal"], &["semseg", "sal", "depth"]].map(|tasks| of(tasks).unwrap());
    let sum = (&semseg + &sal).unwrap();
    let scale = sum.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(distance(&all, &sum).unwrap() < 1e-5 * f64::from(scale));
    assert!(of(&["depth"]).is_none());
}

#[test]
fn a_shared_layer_comes_along_with_tasks_that_are_added_and_goes_with_the_last() {
    let model = sharing().build().unwrap();
    let layer = |model: &TADFormer| entry(model, SHARED).map(|entry| entry.tensor().clone());
    let more = model.with_tasks(model.config().tasks.with("edge=1".parse().unwrap()).unwrap(), 5).unwrap();
    assert_eq!(distance(&layer(&more).unwrap(), &layer(&model).unwrap()).unwrap(), 0.0);
    assert!(entry(&more, "heads.edge.hidden.bias").is_some() && entry(&more, "heads.edge.hidden.weight").is_none());
    let alone = model.with_tasks("sal=1".parse().unwrap(), 5).unwrap();
    assert_eq!(distance(&layer(&alone).unwrap(), &layer(&model).unwrap()).unwrap(), 0.0);
    assert!(layer(&model.with_tasks("depth=1".parse().unwrap(), 5).unwrap()).is_none());
    let message = model.with_tasks("shared:sal=1".parse().unwrap(), 5).map(drop).unwrap_err().to_string();
    assert!(message.starts_with("`tasks`: expected no task named `shared`"), "{message}");
}

#[test]
fn a_shared_layer_trains_as_long_as_one_of_its_tasks_does() {
    let mut model = sharing().build().unwrap();
    randomise_b(&model).unwrap();
    let of_layer = |model: &TADFormer, tasks: &[&str]| {
        gradients(model, tasks).get(entry(model, SHARED).unwrap().tensor()).is_some()
    };
    model.freeze("semseg").unwrap();
    assert!(of_layer(&model, &["semseg", "sal"]) && !of_layer(&model, &["semseg"]), "a frozen decoder gives none");
    model.freeze("sal").unwrap();
    assert!(matches!(entry(&model, SHARED).unwrap().role, Role::Held(_)));
    assert!(!of_layer(&model, &["semseg", "sal", "depth"]));
    model.unfreeze("semseg").unwrap();
    assert!(of_layer(&model, &["semseg"]));
    model.freeze("shared_heads").unwrap();
    assert!(!of_layer(&model, &["semseg"]));
}

#[test]
fn decoders_of_other_sizes_share_no_layer() {
    let refused = sharing().own_head("sal", shared([2, 2, 1, 3])).build().map(drop).unwrap_err().to_string();
    assert!(
        refused
            .starts_with("`own_heads.sal.channels`: expected [2, 2, 3, 1], as `head.channels` has, got [2, 2, 1, 3]"),
        "{refused}"
    );
    sharing().own_head("sal", HrNetConfig::new([2, 2, 1, 3])).build().unwrap();
}

#[test]
fn what_dropout_takes_is_gone_before_the_last_layers() {
    // All but nothing is dropped: what is left of a decoder is what its last layers make of zeros.
    let rate = 1.0 - 1e-9;
    let model =
        builder().tasks("depth=1".parse().unwrap()).head(SegFormerConfig::new(6).dropout(rate)).build().unwrap();
    let pass = TrainingPass::seeded(1);
    let outputs = model.forward(&images(2, 44, 60).unwrap(), Mode::Train(&pass)).unwrap();
    let bias = entry(&model, "heads.depth.output.bias").unwrap().tensor().to_vec1::<f32>().unwrap()[0];
    let off = (outputs.get("depth").unwrap() - f64::from(bias)).unwrap().abs().unwrap().max_all().unwrap();
    assert!(off.to_scalar::<f32>().unwrap() < 1e-6);
    let aspp = AsppConfig::new([1, 2, 1, 2]).width(3).rates([1]).dropout(rate);
    let model = builder().tasks("depth=1".parse().unwrap()).head(aspp).build().unwrap();
    let outputs = model.forward(&images(2, 44, 60).unwrap(), Mode::Train(&pass)).unwrap();
    let (low, high) = outputs.get("depth").map(|y| (y.min_all().unwrap(), y.max_all().unwrap())).unwrap();
    assert!(distance(&low, &high).unwrap() < 1e-6, "the same everywhere");
}

#[test]
fn an_aspp_decoder_trains_on_no_batch_of_one_and_says_so() {
    let model =
        builder().tasks("depth=1".parse().unwrap()).head(AsppConfig::new([1, 2, 1, 2]).width(3)).build().unwrap();
    let pass = TrainingPass::seeded(1);
    let message = model.forward(&images(1, 44, 60).unwrap(), Mode::Train(&pass)).map(drop).unwrap_err().to_string();
    assert!(message.contains("at least 2 values for each channel in training, got 1"), "{message}");
    assert!(model.forward(&images(1, 44, 60).unwrap(), Mode::Eval).is_ok());
}
