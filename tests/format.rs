//! The page that documents the adapter file says what is in the files: each key and tensor, no fewer and no more.
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::builder;
use safetensors::SafeTensors;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tadformer::files::write_tensors;
use tadformer::heads::{AsppConfig, HeadConfig, HrNetConfig, LinearConfig, SegFormerConfig};
use tadformer::model::{ModelFile, Stored};
use tadformer::params::{Pretrained, Release};
use tadformer::tad::{Gate, LowRank, Method, PerTask, Prompts, TaskFilterKind, TaskPaths, TpcReading};
use tadformer::{TADFormer, Task, Tuning};

const PAGE: &str = include_str!("../docs/adapter-format.md");

/// The rows of every table under a heading: what stands in the first column's backticks, and the other columns.
fn rows(heading: &str) -> Vec<(String, Vec<String>)> {
    let section = PAGE.split("\n# ").find(|section| section.starts_with(heading)).unwrap();
    let row = |line: &str| {
        let mut cells =
            line.strip_prefix("| `")?.split(" | ").map(|cell| cell.trim_matches(['`', ' ', '|']).to_owned());
        Some((cells.next()?, cells.collect()))
    };
    section.lines().filter_map(row).collect()
}

/// The file, its metadata and its tensors' shapes.
struct Written {
    bytes: Vec<u8>,
    metadata: Value,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn written(save: impl Fn(&Path)) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    save(&path);
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = header.metadata().clone().unwrap();
    assert_eq!(metadata.keys().collect::<Vec<_>>(), ["tadformer"]);
    let tensors = header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect();
    Written { metadata: serde_json::from_str(&metadata["tadformer"]).unwrap(), tensors, bytes }
}

fn models() -> Vec<TADFormer> {
    let paths = |filter, prompts| PerTask::default().filter(filter).prompts(prompts);
    let prompts = |gate| Prompts::Learned { per_task: 2, gate };
    let dynamic = TaskFilterKind::Dynamic { kernel: 3 };
    let methods = [
        Method::tadformer(3).task_paths(paths(dynamic, Prompts::learned(2))),
        Method::tadformer(2).task_paths(paths(
            TaskFilterKind::Static { kernel: 5 },
            prompts(Gate::Average { reading: TpcReading::Swapped }),
        )),
        Method::none().task_paths(paths(TaskFilterKind::None, prompts(Gate::None))),
        Method::low_rank(2).task_paths(paths(dynamic, Prompts::None)),
        Method::low_rank(2).linears(LowRank::new(2).ranks([1, 2, 3, 4])),
    ];
    let methods = methods.map(|method| builder().method(method));
    let aspp = AsppConfig::new([1, 2, 1, 2]).width(3).rates([2, 4, 6]);
    let mixed = builder().head(aspp.clone()).own_head("depth", HrNetConfig::new([1, 3, 5, 2]));
    let mixed = mixed.own_head("sal", LinearConfig::default()).own_head("edge", SegFormerConfig::new(5));
    let shared = builder().head(HeadConfig::HrNetShared(HrNetConfig::new([2, 1, 3, 1]))).own_head("sal", aspp);
    let others = [builder().release(Release::everything()), mixed, shared].into_iter();
    let kinds = HeadConfig::published().map(|head| builder().head(head));
    methods.into_iter().chain(others).chain(kinds).map(|builder| builder.build().unwrap()).collect()
}

/// Paths of a document's leaves, as the page writes them; what the page has as one value is one leaf.
fn leaves(value: &Value, path: &str, documented: &BTreeSet<String>, found: &mut BTreeSet<String>) {
    match value {
        _ if documented.contains(path) => drop(found.insert(path.to_owned())),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(value, &below, documented, found);
        }),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, &format!("{path}[]"), documented, found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_there() {
    let documented: BTreeSet<String> = rows("Metadata").into_iter().map(|(key, _)| key).collect();
    assert_eq!(documented.len(), 35);
    let mut ever = BTreeSet::new();
    for model in models() {
        let file = written(|path| model.save_adapter(path).unwrap());
        let mut found = BTreeSet::new();
        leaves(&file.metadata, "", &documented, &mut found);
        assert!(found.is_subset(&documented), "{:?}", found.difference(&documented));
        ever.extend(found);
        assert!(rows("Metadata")[0].1[0].ends_with(&format!(": {}", file.metadata["format"])));
        assert_eq!(file.metadata["crate_version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(file.metadata["stored"], "adapter");
    }
    assert_eq!(ever, documented);
}

#[test]
fn every_kind_that_is_written_is_documented() {
    let documented = rows("Metadata").into_iter().filter(|(key, _)| key.ends_with(".kind"));
    let mut kinds: BTreeMap<String, (String, usize)> =
        documented.map(|(key, row)| (key, (format!("`{}`", row.concat()), 0))).collect();
    for model in models() {
        let metadata = written(|path| model.save_adapter(path).unwrap()).metadata;
        for (key, (row, count)) in &mut kinds {
            if let Some(kind) = metadata.pointer(&format!("/{}", key.replace("[]", ".0").replace('.', "/"))) {
                assert!(row.contains(&format!("`{}`", kind.as_str().unwrap())), "{key}: {kind}");
                *count += 1;
            }
        }
    }
    assert!(kinds.values().all(|(_, count)| *count > 0), "{kinds:?}");
}

#[test]
fn a_backbones_origin_has_the_documented_keys() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm");
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join(format!("models--a--b/snapshots/{}", "0".repeat(40)));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::copy(golden.join("model.safetensors"), snapshot.join("model.safetensors")).unwrap();
    let row = rows("Metadata").into_iter().find(|(key, _)| key == "base.origin").unwrap().1.concat();
    let of = |path: &Path| TADFormer::builder_from_pretrained(path).unwrap().rank(2).build().unwrap();
    for model in [builder().build().unwrap(), of(&golden), of(&snapshot)] {
        let origin = written(|path| model.save_adapter(path).unwrap()).metadata["base"]["origin"].clone();
        let keys = origin.as_object().unwrap().keys().filter(|key| *key != "kind");
        let keys: Vec<String> = keys.map(|key| format!("\"{key}\"")).collect();
        let documented = format!("{{\"kind\": {}, {}}}", origin["kind"], keys.join(", "));
        assert!(row.contains(&documented), "{documented} is not in {row}");
    }
}

/// The documented name that a tensor's is an instance of, with its stage and linear and whether it is a task's.
fn pattern(name: &str, tasks: &[&str]) -> (String, usize, String) {
    let linears = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"];
    let linear = linears.into_iter().find(|linear| name.contains(&format!(".{linear}."))).unwrap_or_default();
    let mut numbers = ["i", "j"].into_iter();
    let mut stage = 0;
    let part = |part: &str| match part.parse::<usize>() {
        Ok(number) => {
            let letter = numbers.next().unwrap();
            stage = if letter == "i" { number } else { stage };
            letter.to_owned()
        }
        Err(_) if tasks.contains(&part) => "TASK".to_owned(),
        Err(_) => part.to_owned(),
    };
    let name = if linear.is_empty() { name.to_owned() } else { name.replace(linear, "LINEAR") };
    let parts: Vec<String> = name.split('.').map(part).collect();
    (branches_by_one_name(parts.join(".")), stage, linear.to_owned())
}

/// The norms of an ASPP decoder's branches, which the page writes once for all of them.
fn branches_by_one_name(name: String) -> String {
    let branches = ["point", "dilated.i", "pool", "project", "refine"];
    let parts = branches.map(|branch| (format!("heads.TASK.{branch}.norm."), "heads.TASK.BRANCH.norm."));
    parts.iter().fold(name, |name, (branch, all)| name.replace(branch, all))
}

/// Of a task's decoder: the channels to which each stage is projected, the hidden channels, and those of all branches.
fn decoder(head: &HeadConfig, outputs: usize) -> (Vec<usize>, usize, usize) {
    match head {
        HeadConfig::HrNet(head) | HeadConfig::HrNetShared(head) => {
            (head.channels.clone(), 4 * head.channels.iter().sum::<usize>(), 0)
        }
        HeadConfig::SegFormer(head) => (vec![head.channels; 4], head.channels, 0),
        HeadConfig::Aspp(head) => (head.channels.clone(), head.width, (head.rates.len() + 2) * head.width),
        HeadConfig::Linear(_) => (vec![outputs; 4], 0, 0),
        other => panic!("{other:?}"),
    }
}

/// The sides that a documented shape means for one tensor.
fn shape(text: &str, model: &TADFormer, (stage, linear): (usize, &str), task: Option<&Task>) -> Vec<usize> {
    let (config, swin) = (model.config(), &model.config().swin);
    let width = swin.embed_dim << stage;
    let hidden = (width as f64 * swin.mlp_ratio) as usize;
    let (out, n_in) = match linear {
        "attn.qkv" => (3 * width, width),
        "mlp.fc1" => (hidden, width),
        "mlp.fc2" => (width, hidden),
        _ => (width, width),
    };
    let rank = config.method.stage_rank(stage);
    let kernel = match &config.method.task_paths {
        TaskPaths::PerTask(PerTask {
            filter: TaskFilterKind::Dynamic { kernel } | TaskFilterKind::Static { kernel },
            ..
        }) => *kernel,
        _ => 0,
    };
    let outputs = task.map_or(0, Task::outputs);
    let (projected, hidden_channels, branches) =
        decoder(task.map_or(&config.head, |task| config.head_of(task.name())), outputs);
    let window = swin.window.min((swin.image_size / swin.patch_size) >> stage);
    let side = |side: &str| match side {
        "P" => config.tasks.len() * config.method.prompts().per_task(),
        "C" => swin.embed_dim,
        "2^i C" => width,
        "2^(i+1) C" => 2 * width,
        "r" => rank,
        "K" => rank * kernel * kernel,
        "k" => kernel,
        "p" => swin.patch_size,
        "in" => n_in,
        "out" => out,
        "n" => outputs,
        "H" => projected.iter().sum(),
        "U" => hidden_channels,
        "V" => branches,
        "W_i" => swin.embed_dim << (stage + 1).min(swin.stages() - 1),
        "h_i" => projected[stage],
        "heads" => swin.num_heads[stage],
        "(2w-1)^2" => (2 * window - 1) * (2 * window - 1),
        number => number.parse().unwrap(),
    };
    text.trim_matches(['[', ']']).split(", ").map(side).collect()
}

#[test]
fn every_tensor_is_documented_with_its_shape_and_every_documented_tensor_is_there() {
    let documented: BTreeMap<String, Vec<String>> = rows("Tensors").into_iter().collect();
    let mut found = BTreeSet::new();
    for model in models() {
        let tasks: Vec<&str> = model.config().tasks.iter().map(|task| task.name()).collect();
        for file in [written(|path| model.save_adapter(path).unwrap()), written(|path| model.save_full(path).unwrap())]
        {
            for (name, got) in &file.tensors {
                let (pattern, stage, linear) = pattern(name, &tasks);
                let row =
                    documented.get(&pattern).unwrap_or_else(|| panic!("`{name}` is not documented as `{pattern}`"));
                let task =
                    model.config().tasks.iter().find(|task| name.starts_with(&format!("heads.{}.", task.name())));
                let want = shape(&row[0], &model, (stage, &linear), task);
                assert_eq!(got, &want, "{name}");
                found.insert(pattern);
            }
        }
    }
    assert_eq!(found, documented.into_keys().collect());
}

#[test]
fn each_released_group_adds_the_tensors_that_are_documented_of_it() {
    for group in Pretrained::ALL {
        let model = builder().tuning(Tuning::DecodersOnly, 0).release(Release::none().with(*group)).build().unwrap();
        let names = written(|path| model.save_adapter(path).unwrap()).tensors.into_keys();
        let saved: BTreeSet<String> =
            names.map(|name| pattern(&name, &[]).0).filter(|name| is_pretrained(name)).collect();
        let of_group =
            |row: &str| row.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == group.name());
        let documented = rows("Tensors").into_iter().filter(|(name, row)| is_pretrained(name) && of_group(&row[1]));
        assert_eq!(saved, documented.map(|(name, _)| name).collect(), "{}", group.name());
    }
}

#[test]
fn the_digest_is_made_as_documented() {
    let model = builder().release(Release::none()).build().unwrap();
    let file = written(|path| model.save_full(path).unwrap());
    let tensors = SafeTensors::deserialize(&file.bytes).unwrap();
    let backbone =
        |name: &&String| rows("Tensors").iter().any(|(row, _)| *row == pattern(name, &[]).0 && is_pretrained(row));
    let mut all = Sha256::new();
    for name in file.tensors.keys().filter(backbone) {
        let tensor = tensors.tensor(name).unwrap();
        let mut one = Sha256::new();
        tensor.shape().iter().for_each(|side| one.update((*side as u64).to_le_bytes()));
        one.update(tensor.data());
        all.update([name.as_bytes(), &[0], one.finalize().as_slice()].concat());
    }
    let hex: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(file.metadata["base"]["digest"], hex);
}

#[test]
fn the_fuzzers_seeds_are_of_this_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.safetensors");
    let mut stored = Vec::new();
    for seed in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/adapter")).unwrap() {
        let metadata = std::fs::read_to_string(seed.unwrap().path()).unwrap();
        // As many values as `fuzz_targets/adapter.rs` gives it: a file with fewer than its configuration has is refused.
        let values = Tensor::zeros(40_000, DType::F32, &Device::Cpu).unwrap();
        write_tensors(&path, vec![("values".into(), values)], Some(("tadformer", metadata))).unwrap();
        stored.push(ModelFile::open(&path).unwrap().stored());
    }
    stored.sort_by_key(|stored| *stored == Stored::Full);
    assert_eq!(stored, [Stored::Adapter, Stored::Full]);
}

/// Whether a documented name stands in the table of the backbone's tensors.
fn is_pretrained(name: &str) -> bool {
    let (_, backbone) = PAGE.split_once("The backbone's own tensors").unwrap();
    backbone.contains(&format!("| `{name}` |"))
}
