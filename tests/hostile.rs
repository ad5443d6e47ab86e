//! Files that mean harm give errors, in bounded time and memory.
#![allow(clippy::unwrap_used)]

mod common;

use common::{builder, images, swin};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tadformer::layers::Mode;
use tadformer::model::{ModelFile, OpenOptions};
use tadformer::params::{Checkpoint, Release};
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TADFormerBuilder};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128/timm/model.safetensors")
}

/// A safetensors file taken apart.
#[derive(Clone)]
struct Parts {
    header: Value,
    data: Vec<u8>,
}

impl Parts {
    fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(), data: bytes[8 + length..].to_vec() }
    }

    fn write(&self, path: &Path) {
        let header = self.header.to_string();
        std::fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()).unwrap();
    }

    /// The document that the crate's own files carry, changed.
    fn with_metadata(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let text = self.header["__metadata__"]["tadformer"].as_str().unwrap();
        let mut metadata = serde_json::from_str(text).unwrap();
        change(&mut metadata);
        self.header["__metadata__"]["tadformer"] = metadata.to_string().into();
        self
    }

    /// One value of a tensor in f32, changed.
    fn with_value(mut self, tensor: &str, value: f32) -> Self {
        let at = self.header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        self.data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }
}

/// An adapter and its backbone in a folder of their own.
fn adapter(builder: TADFormerBuilder) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.safetensors");
    builder.build().unwrap().save_adapter(&path).unwrap();
    (folder, path)
}

/// What comes of opening a file, which must come soon.
fn refusal(path: &Path) -> String {
    let start = Instant::now();
    let message = TADFormer::from_adapter(path).map(drop).unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}: {message:.200}", start.elapsed());
    message
}

#[test]
fn a_header_of_eight_gigabytes_in_a_file_that_long_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, (8u64 << 30).to_le_bytes()).unwrap();
    // Nothing of it is on disk, and nothing comes into memory.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(9 << 30).unwrap();
    let start = Instant::now();
    let message = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(message.contains("HeaderTooLarge") || message.contains("header"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        Parts::of(&golden()).with_value("layers.1.blocks.0.attn.qkv.weight", value).write(&path);
        let message = TADFormer::from_pretrained(&path).unwrap().rank(2).build().map(drop).unwrap_err().to_string();
        assert!(message.contains("`layers.1.blocks.0.attn.qkv.weight` holds NaN or infinity"), "{message}");
    }
    let (_folder, path) = adapter(builder());
    Parts::of(&path).with_value("prompts.table", f32::NAN).write(&path);
    assert!(refusal(&path).contains("`prompts.table` holds NaN or infinity"));
    let model = builder().build().unwrap();
    let output = |model: &TADFormer| model.forward(&images(1, 32, 32).unwrap(), Mode::Eval).unwrap();
    let before = output(&model).get("depth").unwrap().clone();
    assert!(model.load_adapter(&path).is_err());
    assert_eq!(common::distance(output(&model).get("depth").unwrap(), &before).unwrap(), 0.0, "the model is as it was");
}

#[test]
fn a_configuration_as_large_as_any_that_passes_is_counted_in_no_time() {
    let (_folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let huge = json!({ "image_size": 65536, "patch_size": 4, "embed_dim": 8192, "depths": [256, 256, 256, 256, 256, 256, 256, 256],
        "num_heads": [1, 1, 1, 1, 1, 1, 1, 1], "window": 64 });
    let change = |metadata: &mut Value| {
        metadata["config"]["swin"] = huge.clone();
        metadata["config"]["head"]["channels"] = json!([16383, 16383, 16383, 16383, 16383, 16383, 16383, 16383]);
        let tasks = (0..256).map(|i| json!({ "name": format!("t{i}"), "kind": "sal", "outputs": 1 }));
        metadata["config"]["tasks"] = tasks.collect();
    };
    whole.clone().with_metadata(change).write(&path);
    assert!(refusal(&path).contains("fewer than the"));
    let tasks = |count: usize| {
        move |metadata: &mut Value| {
            let tasks = (0..count).map(|i| json!({ "name": format!("t{i}"), "kind": "sal", "outputs": 1 }));
            metadata["config"]["tasks"] = tasks.collect();
        }
    };
    whole.with_metadata(tasks(300_000)).write(&path);
    assert!(refusal(&path).contains("expected at most 256, got 300000"));
}

#[test]
fn a_small_bias_table_buys_no_large_one_before_the_other_shapes_fit() {
    // Frozen tables of one row, for windows of 64: resized, each would take half a gigabyte.
    let wide = SwinConfig { window: 64, image_size: 1 << 16, embed_dim: 8192, num_heads: vec![8192; 4], ..swin() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut header = json!({});
    let mut length = 0;
    for stage in 0..4 {
        let name = format!("layers.{stage}.blocks.0.attn.relative_position_bias_table");
        header[name] = json!({ "dtype": "F32", "shape": [1, 8192], "data_offsets": [length, length + 32768] });
        length += 32768;
    }
    header["layers.0.blocks.0.attn.qkv.weight"] =
        json!({ "dtype": "F32", "shape": [0, 8], "data_offsets": [length, length] });
    Parts { header, data: vec![0; length] }.write(&path);
    let start = Instant::now();
    let build = TADFormer::builder(wide).release(Release::none()).rank(1).pretrained(&path).build();
    let message = build.map(drop).unwrap_err().to_string();
    assert!(message.contains("is missing"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn metadata_as_deep_as_it_is_long_is_refused() {
    let (_folder, path) = adapter(builder());
    for text in [
        "[".repeat(10_000),
        r#"{"config":"#.repeat(10_000),
        format!(r#"{{"format":1,"crate_version":"0","x":{}"#, "[".repeat(10_000)),
    ] {
        let mut parts = Parts::of(&path);
        parts.header["__metadata__"]["tadformer"] = text.into();
        let other = path.with_file_name("deep.safetensors");
        parts.write(&other);
        assert!(refusal(&other).contains("no tadformer adapter"));
    }
}

#[test]
fn names_that_leave_their_folder_are_refused() {
    let (_folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let name = |name: &str| {
        let name = name.to_owned();
        move |metadata: &mut Value| metadata["config"]["tasks"][0]["name"] = name.into()
    };
    for bad in ["../../etc/passwd", "a/b", "..", "a\\b", "C:x", ""] {
        whole.clone().with_metadata(name(bad)).write(&path);
        assert!(refusal(&path).contains("a name of letters, digits"), "{bad}");
    }
    whole.with_metadata(|metadata| metadata["base"]["digest"] = format!("../..{}", "0".repeat(59)).into()).write(&path);
    assert!(refusal(&path).contains("a digest that is none"));
}

#[cfg(feature = "hub")]
#[test]
fn a_backbones_id_that_is_a_path_is_none() {
    let (folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    std::fs::remove_file(folder.path().join(ModelFile::open(&path).unwrap().base().file_name())).unwrap();
    for id in ["../../etc", "/etc/passwd", "a/b/c", "a/../b"] {
        let origin = json!({ "hub": { "id": id, "revision": "main" } });
        whole.clone().with_metadata(|metadata| metadata["base"]["origin"] = origin).write(&path);
        let options = OpenOptions { hub: tadformer::hub::Hub::default().offline(), ..OpenOptions::default() };
        let message = TADFormer::open(&path, &options).map(drop).unwrap_err().to_string();
        assert!(message.contains("its backbone: "), "{message}");
        assert!(message.contains("expected OWNER/NAME") || message.contains("no such file"), "{message}");
    }
}

/// An adapter whose metadata records this path of the backbone, as development versions wrote it, and no backbone beside it.
fn with_recorded_path(recorded: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (folder, path) = adapter(builder());
    let backbone = folder.path().join(ModelFile::open(&path).unwrap().base().file_name());
    let origin = json!({ "file": { "path": recorded } });
    Parts::of(&path).with_metadata(|metadata| metadata["base"]["origin"] = origin).write(&path);
    let moved = folder.path().join("elsewhere.safetensors");
    std::fs::rename(backbone, &moved).unwrap();
    (folder, path, moved)
}

#[test]
fn a_recorded_path_is_not_opened() {
    for path in ["/dev/zero", "/dev/stdin", "/dev/random", "/etc/passwd", "", "..", "\u{1b}[2J"] {
        let (_folder, path, _) = with_recorded_path(path);
        let message = refusal(&path);
        assert!(message.contains("its backbone: ") && !message.contains('\u{1b}'), "{message}");
    }
    // Not where it leads to the backbone itself either: what a foreign file names is not looked into.
    let (folder, path, moved) = with_recorded_path("");
    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path().join("swin.safetensors");
    std::fs::copy(&moved, &there).unwrap();
    let origin = json!({ "file": { "path": there } });
    Parts::of(&path).with_metadata(|metadata| metadata["base"]["origin"] = origin).write(&path);
    let message = refusal(&path);
    assert!(message.contains("read from `swin.safetensors`"), "{message}");
    assert!(!message.contains(elsewhere.path().to_str().unwrap()), "{message}");
    // Beside the adapter it is found by its name; what is saved again has the name alone.
    std::fs::copy(&there, folder.path().join("swin.safetensors")).unwrap();
    let again = elsewhere.path().join("again.safetensors");
    TADFormer::from_adapter(&path).unwrap().save_adapter(&again).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(&again).unwrap()).into_owned();
    assert!(text.contains("swin.safetensors") && !text.contains(elsewhere.path().to_str().unwrap()));
}

/// Values that a reader may trip over.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(0)),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(1e300)),
        Just(json!(u64::MAX)),
        Just(json!("")),
        Just(json!([])),
        Just(json!({})),
        (0..1000u64).prop_map(|n| json!(n)),
        prop::collection::vec(0..100u64, 0..9).prop_map(|list| json!(list)),
    ]
}

/// Every value of a document that holds no others.
fn places(value: &mut Value) -> Vec<&mut Value> {
    if !matches!(value, Value::Object(_) | Value::Array(_)) {
        return vec![value];
    }
    match value {
        Value::Object(fields) => fields.values_mut().flat_map(places).collect(),
        Value::Array(items) => items.iter_mut().flat_map(places).collect(),
        _ => vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn no_change_of_an_adapters_metadata_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4)) {
        let (_folder, path) = adapter(builder().tasks("sal=1,depth=1".parse().unwrap()));
        let change = |metadata: &mut Value| {
            for (place, value) in changes {
                let mut places = places(metadata);
                let at = place.index(places.len());
                *places[at] = value;
            }
        };
        Parts::of(&path).with_metadata(change).write(&path);
        if let Ok(file) = ModelFile::open(&path) {
            prop_assert!(file.config().check().is_ok());
            drop(file.into_model(&OpenOptions::default()));
        }
    }

    #[test]
    fn no_changed_bytes_of_a_header_make_it_panic(changes in prop::collection::vec((0..30_000usize, any::<u8>()), 1..6)) {
        let mut bytes = std::fs::read(golden()).unwrap();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            for name in checkpoint.names() {
                drop(checkpoint.load(name, candle_core::DType::F32, &candle_core::Device::Cpu));
            }
            drop(SwinConfig::of_checkpoint(&path));
        }
    }

    #[test]
    fn no_change_of_a_configuration_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        for library in ["timm", "transformers"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/swin_w4_128").join(library).join("config.json");
            let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            for (place, value) in &changes {
                let mut places = places(&mut config);
                let at = place.index(places.len());
                *places[at] = value.clone();
            }
            let path = folder.path().join("config.json");
            std::fs::write(&path, config.to_string()).unwrap();
            if let Ok(config) = SwinConfig::of_config(&path) {
                prop_assert!(config.check().is_ok());
            }
        }
    }
}
