//! Files that mean harm give errors, in bounded time and memory, which is counted.
//!
//! Checkpoints: headers that lie, values that are no numbers, types that are no floats, views of one storage, files cut short or changed
//! while they are read. Adapters: metadata of any kind, names that are paths or move a cursor, recorded paths, configurations that buy
//! work. Every reader: FIFOs, devices, sockets and folders where a file is expected. What is inside a pickle or a zip is attacked beside
//! their readers, in `src/params`; what comes from the network in `tests/hub.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use candle_core::{DType, Device, Tensor};
use common::{builder, images, swin};
use counting::{Counting, during};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tadformer::checkpoint::Checkpoint;
use tadformer::heads::{AsppConfig, HeadConfig, HrNetConfig, SegFormerConfig};
use tadformer::layers::Mode;
use tadformer::model::{BackboneFile, ModelFile, OpenOptions, ReleasedFile};
use tadformer::params::Release;
use tadformer::swin::SwinConfig;
use tadformer::{TADFormer, TADFormerBuilder};

#[global_allocator]
static COUNTING: Counting = Counting;

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

    /// The same tensors with their bytes in another type, or under another name of a type.
    fn retyped(mut self, tensor: &str, dtype: &str, convert: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        let (mut data, mut header) = (Vec::new(), serde_json::Map::new());
        for (name, entry) in self.header.as_object().unwrap() {
            let mut entry = entry.clone();
            if name != "__metadata__" {
                let [from, to] = [0, 1].map(|i| entry["data_offsets"][i].as_u64().unwrap() as usize);
                let start = data.len();
                if tensor.is_empty() || tensor == name {
                    entry["dtype"] = dtype.into();
                    data.extend(convert(&self.data[from..to]));
                } else {
                    data.extend(&self.data[from..to]);
                }
                entry["data_offsets"] = json!([start, data.len()]);
            }
            header.insert(name.clone(), entry);
        }
        (self.header, self.data) = (header.into(), data);
        self
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

/// What comes of opening a file, which must come soon and take little memory beside the file's own size.
fn refusal(path: &Path) -> String {
    let start = Instant::now();
    let (message, bytes) = during(|| TADFormer::from_adapter(path).map(drop).unwrap_err().to_string());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}: {message:.200}", start.elapsed());
    let most = 100 * std::fs::metadata(path).map_or(0, |file| file.len() as isize) + (64 << 20);
    assert!(bytes.peak < most, "{} bytes: {message:.200}", bytes.peak);
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
        let message =
            TADFormer::builder_from_pretrained(&path).unwrap().rank(2).build().map(drop).unwrap_err().to_string();
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
    let huge = json!({ "image_size": 128, "patch_size": 1, "embed_dim": 8, "depths": [256, 256, 256, 256, 256, 256, 1, 1],
        "num_heads": [1, 1, 1, 1, 1, 1, 1, 1], "window": 8 });
    let change = |metadata: &mut Value| {
        metadata["config"]["swin"] = huge.clone();
        metadata["config"]["method"]["task_paths"]["filter"] = json!({ "kind": "static", "kernel": 3 });
        metadata["config"]["head"]["channels"] = json!([16, 16, 16, 16, 16, 16, 16, 16]);
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
    // Frozen tables of one row, for windows of 64: resized, each would take half a megabyte, of each block of a deep network.
    let depths = vec![1; 4];
    let wide = SwinConfig { window: 64, image_size: 1024, embed_dim: 32, num_heads: vec![8; 4], depths, ..swin() };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut header = json!({});
    let mut length = 0;
    for stage in 0..4 {
        let name = format!("layers.{stage}.blocks.0.attn.relative_position_bias_table");
        header[name] = json!({ "dtype": "F32", "shape": [1, 8], "data_offsets": [length, length + 32] });
        length += 32;
    }
    header["layers.0.blocks.0.attn.qkv.weight"] =
        json!({ "dtype": "F32", "shape": [0, 8], "data_offsets": [length, length] });
    Parts { header, data: vec![0; length] }.write(&path);
    let start = Instant::now();
    let builder = TADFormer::builder(wide).release(Release::none()).rank(1).pretrained(&path);
    let (message, bytes) = during(|| builder.build().map(drop).unwrap_err().to_string());
    assert!(message.contains("is missing"), "{message}");
    assert!(bytes.peak < 1 << 20, "{} bytes", bytes.peak);
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
        let origin = json!({ "kind": "hub", "id": id, "revision": "main" });
        whole.clone().with_metadata(|metadata| metadata["base"]["origin"] = origin).write(&path);
        let options = OpenOptions { hub: tadformer::hub::Hub::default().offline(), ..OpenOptions::default() };
        let message = TADFormer::open(&path, &options).map(drop).unwrap_err().to_string();
        assert!(message.contains("its backbone: "), "{message}");
        assert!(message.contains("expected OWNER/NAME") || message.contains("no such file"), "{message}");
    }
}

/// An adapter whose metadata has this path for the backbone's name, and no backbone beside it.
fn with_recorded_path(recorded: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (folder, path) = adapter(builder());
    let backbone = folder.path().join(ModelFile::open(&path).unwrap().base().file_name());
    let origin = json!({ "kind": "file", "name": recorded });
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
    let origin = json!({ "kind": "file", "name": there });
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

#[test]
fn configurations_that_buy_unbounded_work_are_refused_by_their_products() {
    let (_folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let tasks = |count: usize, outputs: usize| {
        let kind = if outputs > 1 { "semseg" } else { "sal" };
        Value::from_iter((0..count).map(|i| json!({ "name": format!("t{i}"), "kind": kind, "outputs": outputs })))
    };
    for (words, changes) in [
        ("`image_size`: expected 32 to 4096, got 65536", json!({ "/swin/image_size": 65536 })),
        (
            "`stage 0: patches x hidden channels`",
            json!({ "/swin/image_size": 4096, "/swin/patch_size": 1, "/swin/mlp_ratio": 8.0 }),
        ),
        ("`tasks x prompts.per_task`", json!({ "/method/task_paths/prompts/per_task": 300, "/tasks": tasks(2, 1) })),
        (
            "`stage 0: windows x tokens of a window x channels`",
            json!({ "/method/task_paths/prompts/per_task": 2, "/tasks": tasks(256, 1), "/swin/image_size": 4096 }),
        ),
        (
            "`stage 0: tasks x patches x channels`",
            json!({ "/tasks": tasks(200, 1), "/swin/image_size": 1024, "/swin/patch_size": 1 }),
        ),
        ("`image_size² x outputs`", json!({ "/tasks": tasks(40, 255), "/swin/image_size": 1024 })),
        ("`patches x head.channels`", json!({ "/head/channels": [16383, 1, 1, 1], "/swin/image_size": 1024 })),
        ("`parameters`: expected at most 2147483648 in all", json!({ "/head/channels": [8000, 8000, 8000, 8000] })),
        ("`scale`: expected a number from 0.0001 to 10000.0", json!({ "/method/linears/scale": 1e308 })),
    ] {
        let change = |metadata: &mut Value| {
            for (place, value) in changes.as_object().unwrap() {
                *metadata["config"].pointer_mut(place).unwrap() = value.clone();
            }
        };
        whole.clone().with_metadata(change).write(&path);
        let message = refusal(&path);
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn weights_that_are_no_floats_are_refused_by_name() {
    let (_folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let name = "layers.0.blocks.0.attn.qkv.low_rank.a";
    for dtype in ["I32", "U32", "C64", "I64", "F8_E4M3", "F8_E8M0", "F4", "BOOL", "U8", "I16"] {
        // As many values as there were, of whatever width.
        let half_bytes = match dtype {
            "F4" => 1,
            "F8_E4M3" | "F8_E8M0" | "BOOL" | "U8" => 2,
            "I16" => 4,
            "C64" | "I64" => 16,
            _ => 8,
        };
        whole.clone().retyped(name, dtype, |bytes| vec![0x40; bytes.len() / 8 * half_bytes]).write(&path);
        let message = refusal(&path);
        let wanted = format!("`{name}` holds {dtype}, expected F32 or F16 or BF16 or F64");
        assert!(message.contains(&wanted), "{dtype}: {message}");
    }
    whole.retyped("", "I32", <[u8]>::to_vec).write(&path);
    assert!(refusal(&path).contains("holds I32, expected"));
}

#[test]
fn an_adapter_in_another_float_type_predicts_the_same_to_rounding() {
    let (_folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let predict = || {
        let outputs = TADFormer::from_adapter(&path).unwrap().forward(&images(1, 32, 32).unwrap(), Mode::Eval).unwrap();
        outputs.get("depth").unwrap().clone()
    };
    let want = predict();
    let each = |bytes: &[u8], write: &dyn Fn(f32) -> Vec<u8>| -> Vec<u8> {
        bytes.chunks_exact(4).flat_map(|b| write(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    let f16 = |value: f32| half::f16::from_f32(value).to_le_bytes().to_vec();
    let bf16 = |value: f32| half::bf16::from_f32(value).to_le_bytes().to_vec();
    let f64 = |value: f32| f64::from(value).to_le_bytes().to_vec();
    for (dtype, write, most) in
        [("F64", &f64 as &dyn Fn(f32) -> Vec<u8>, 0.0), ("F16", &f16, 1e-2), ("BF16", &bf16, 1e-1)]
    {
        whole.clone().retyped("", dtype, |bytes| each(bytes, write)).write(&path);
        let error = common::distance(&predict(), &want).unwrap();
        assert!(error <= most, "{dtype}: {error}");
    }
    // What fits F64 and no F32 would be infinite.
    let large = |bytes: &[u8]| each(bytes, &|_| 1e300f64.to_le_bytes().to_vec());
    whole.retyped("prompts.table", "F64", large).write(&path);
    assert!(refusal(&path).contains("`prompts.table` holds numbers beyond F32"));
}

/// A file of `torch.save` whose tensors of f32 all view one storage, each as a whole.
fn pth_of_views(path: &Path, count: usize, values: usize) {
    let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ";
    let tensor = |i: usize| {
        format!("S'layers.{i}'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n(I{values}\nt(I1\ntI00\nNtR")
    };
    let pickle = format!("({}d.", (0..count).map(tensor).collect::<String>());
    let mut zip = zip::write::ZipWriter::new(std::fs::File::create(path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", pickle.as_bytes()), ("a/data/0", &vec![0; 4 * values])] {
        zip.start_file(name, stored).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn thousands_of_views_of_one_storage_are_not_made_copies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shared.pth");
    // Four megabytes, of which 8 GB would come.
    pth_of_views(&path, 2000, 1 << 20);
    for open in [
        |path: &Path| Checkpoint::open(path).map(drop),
        |path: &Path| BackboneFile::open(path).map(drop),
        |path: &Path| ReleasedFile::open(path, None).map(drop),
        |path: &Path| TADFormer::builder_from_pretrained(path).map(drop),
    ] {
        let (message, bytes) = during(|| open(&path).unwrap_err().to_string());
        assert!(message.contains("ask for 8388608000 bytes, over 4 times the"), "{message}");
        assert!(bytes.peak < 16 << 20, "{} bytes", bytes.peak);
    }
}

#[test]
fn a_checkpoint_cut_short_or_changed_after_it_was_opened_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::copy(golden(), &path).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let load = |name: &str| checkpoint.load(name, DType::F32, &Device::Cpu);
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let floats = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let loaded: Vec<Tensor> = names.iter().map(|name| load(name).unwrap()).collect();
    let before: Vec<Vec<f32>> = loaded.iter().map(floats).collect();
    // Others overwrite the file in place: what was loaded stays, and what is loaded now is some numbers or an error.
    let bytes = std::fs::metadata(&path).unwrap().len() as usize;
    std::fs::write(&path, vec![0x41; bytes]).unwrap();
    assert!(loaded.iter().map(floats).eq(before));
    names.iter().for_each(|name| drop(load(name)));
    // Cut short, a mapped file ends the process.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let refused = names.iter().filter_map(|name| load(name).err()).collect::<Vec<_>>();
    assert!(refused.len() > names.len() / 2);
    assert!(refused.iter().all(|error| error.to_string().contains("ends before byte")));
}

#[cfg(unix)]
mod special {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::sync::mpsc;
    use tadformer::Error;

    fn fifo(path: &Path) {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    /// What a reader says, which it says at once: a reader that waits for a FIFO's writer waits for ever.
    fn at_once(what: &str, read: impl FnOnce() -> Result<(), Error> + Send + 'static) -> String {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(read().map_err(|e| e.to_string())));
        let result = receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|e| panic!("{what}: {e}"));
        result.expect_err(what)
    }

    type Reader = fn(&Path) -> Result<(), Error>;
    /// Makes what is no file.
    type Special = fn(&Path);

    /// Everything that reads a file by its name.
    const READERS: &[(&str, Reader)] = &[
        ("a checkpoint", |path| Checkpoint::open(path).map(drop)),
        ("the sizes of a checkpoint", |path| SwinConfig::of_checkpoint(path).map(drop)),
        ("a configuration", |path| SwinConfig::of_config(path).map(drop)),
        ("a backbone", |path| BackboneFile::open(path).map(drop)),
        ("a released model", |path| ReleasedFile::open(path, None).map(drop)),
        ("a model's file", |path| ModelFile::open(path).map(drop)),
        ("an adapter", |path| TADFormer::from_adapter(path).map(drop)),
        ("a pretrained model", |path| TADFormer::builder_from_pretrained(path).map(drop)),
        ("an adapter onto a model", |path| builder().build()?.load_adapter(path)),
        ("a golden file", |path| tadformer::parity::compare(path, DType::F32, &Device::Cpu).map(drop)),
        #[cfg(feature = "data")]
        ("a photo", |path| tadformer::data::read_photo(path).map(drop)),
        #[cfg(feature = "data")]
        ("a label", |path| tadformer::data::read_label(path, &"depth=1".parse()?).map(drop)),
        #[cfg(feature = "train")]
        ("an optimizer's state", |path| {
            let model = builder().build()?;
            tadformer::train::AdamW::new(model.ledger(), Default::default())?.load(path)
        }),
    ];

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_by_every_reader() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        fifo(&pipe);
        let _listener = UnixListener::bind(&socket).unwrap();
        for (kind, path) in [("a FIFO", &pipe), ("a socket", &socket), ("a device", &PathBuf::from("/dev/zero"))] {
            for (what, read) in READERS {
                let (read, path) = (*read, path.clone());
                let message = at_once(what, move || read(&path));
                assert!(message.contains(&format!("{kind}, where a file is expected")), "{what}: {message}");
            }
        }
    }

    #[test]
    fn what_stands_in_the_place_of_a_file_beside_others_is_refused_by_its_name() {
        let folder = |name: &str, special: Special| {
            let (folder, path) = adapter(builder());
            let backbone = folder.path().join(ModelFile::open(&path).unwrap().base().file_name());
            std::fs::rename(&backbone, folder.path().join("model.safetensors")).unwrap();
            let name = if name == "backbone" { backbone.file_name().unwrap().to_str().unwrap() } else { name };
            let place = folder.path().join(name);
            let _ = std::fs::remove_file(&place);
            special(&place);
            (folder, place)
        };
        let folder_in_its_place: Special = |path| std::fs::create_dir(path).unwrap();
        let readers: [(&str, Reader); 5] = [
            ("config.json", |folder| TADFormer::builder_from_pretrained(folder).map(drop)),
            ("model.safetensors", |folder| TADFormer::builder_from_pretrained(folder).map(drop)),
            ("adapter.safetensors", |folder| TADFormer::from_adapter(folder).map(drop)),
            ("backbone", |folder| TADFormer::from_adapter(folder).map(drop)),
            ("README.md", |folder| {
                let card = tadformer::report::ModelCard::of(&builder().build()?);
                card.write_beside(folder.join("adapter.safetensors")).map(drop)
            }),
        ];
        for (kind, special) in [("a FIFO", fifo as Special), ("a folder", folder_in_its_place)] {
            for (name, read) in readers {
                let (_folder, place) = folder(name, special);
                let inside = place.parent().unwrap().to_owned();
                let message = at_once(name, move || read(&inside));
                let wanted = format!("{}: {kind}", place.display());
                assert!(message.contains(&wanted), "{name}: {message}");
            }
        }
    }
}

#[test]
fn what_a_file_says_moves_no_cursor_and_forges_no_line() {
    let evil = "\u{1b}[2J\u{7}\r\n\u{202e}forged";
    let (folder, path) = adapter(builder());
    let whole = Parts::of(&path);
    let elsewhere = folder.path().join("elsewhere.safetensors");
    std::fs::rename(folder.path().join(ModelFile::open(&path).unwrap().base().file_name()), &elsewhere).unwrap();
    let set = |place: &'static str, value: Value| {
        move |metadata: &mut Value| {
            let (parent, key) = place.rsplit_once('/').unwrap();
            metadata.pointer_mut(parent).unwrap()[key] = value;
        }
    };
    let plain = |message: &str| {
        assert!(!message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{message:?}");
    };
    let long = "x".repeat(1 << 20);
    for (place, value) in [
        ("/base/origin", json!({ "kind": "hub", "id": format!("a/b{evil}"), "revision": evil })),
        ("/base/origin", json!({ "kind": "hub", "id": long, "revision": long })),
        ("/base/origin", json!({ "kind": "file", "name": format!("{evil}.pth") })),
        ("/base/origin", json!({ "kind": evil })),
        ("/config/tasks/0/name", evil.into()),
        ("/config/tasks/0/name", long.clone().into()),
        ("/config/tasks/0/kind", evil.into()),
        ("/config/release", json!([evil])),
        ("/config/own_heads", json!({ evil: { "kind": "hrnet", "channels": [2, 2, 4, 4] } })),
        ("/config/own_heads", json!({ long.clone(): { "kind": "hrnet", "channels": [2, 2, 4, 4] } })),
        ("/config/head/kind", evil.into()),
        ("/stored", evil.into()),
        ("/config/x\u{1b}[2J", 1.into()),
    ] {
        whole.clone().with_metadata(set(place, value)).write(&path);
        let options = OpenOptions::default();
        #[cfg(feature = "hub")]
        let options = OpenOptions { hub: tadformer::hub::Hub::default().offline(), ..options };
        let message = TADFormer::open(&path, &options).map(drop).unwrap_err().to_string();
        plain(&message);
        assert!(message.len() < 3000, "{place}: {} bytes", message.len());
    }
    whole
        .clone()
        .with_metadata(|metadata| {
            metadata["format"] = 9.into();
            metadata["crate_version"] = evil.into();
        })
        .write(&path);
    plain(&refusal(&path));
    // Names of tensors, in a load report, in what is missing, and in a file that holds no Swin.
    let mut renamed = Parts::of(&golden());
    let fields = renamed.header.as_object_mut().unwrap();
    let tensor = fields.remove("layers.0.blocks.0.norm1.weight").unwrap();
    fields.insert(format!("layers.0.blocks.0.norm1.weight{evil}"), tensor);
    renamed.write(&elsewhere);
    plain(&BackboneFile::open(&elsewhere).unwrap_err().to_string());
    let odd = folder.path().join(format!("{}.safetensors", evil.replace("\r\n", "")));
    std::fs::copy(golden(), &odd).unwrap();
    plain(&BackboneFile::open(&odd).unwrap().report().to_string());
    let none = json!({ evil: { "dtype": "F32", "shape": [0], "data_offsets": [0, 0] } });
    Parts { header: none, data: vec![] }.write(&elsewhere);
    plain(&BackboneFile::open(&elsewhere).unwrap_err().to_string());
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
        let heads = builder().tasks("sal=1,depth=1,edge=1".parse().unwrap());
        let heads = heads.head(HeadConfig::HrNetShared(HrNetConfig::new([2, 2, 4, 4])));
        let heads = heads.own_head("depth", AsppConfig::new([1, 2, 1, 2]).width(3).rates([1, 4]));
        let (_folder, path) = adapter(heads.own_head("edge", SegFormerConfig::new(3)));
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
                drop(checkpoint.load(name, DType::F32, &Device::Cpu));
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

/// A folder's description of 8 MiB, all of one thing: an error of a line, or what it says, in a second or so and less than a gigabyte.
#[cfg(feature = "data")]
#[test]
fn a_description_of_a_folder_costs_little_whatever_it_is_full_of() {
    use tadformer::data::{Dataset, Folder, FolderDescription};
    use tadformer::image::GrayImage;
    let root = tempfile::tempdir().unwrap();
    for folder in ["images", "a"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
        GrayImage::new(4, 4).save(root.path().join(folder).join("a.png")).unwrap();
    }
    let task = "[[tasks]]\nname = 'a'\nkind = 'sal'\n";
    let list = format!("{task}[splits]\nx = [");
    for (start, again, end, words) in [
        (&*list, "'b',", "]\n", "faults"),
        (&list, "1,", "]\n", "expected a string"),
        ("", "]", "", "line 1, column 1: "),
        ("x = ", "{a=", "", "line 1, column "),
        ("a", ".a", " = 1", "recursion limit"),
        ("[[tasks]]\nname = 'a'\nkind = '", "k", "'\n", "line 3, column 8: unknown variant `kkk"),
        ("[[tasks]]\nkind = 'sal'\nname = '", "n", "'\n", "letters"),
        (&list, "b", "'b']\n", "line 5, column 6: "),
        (&format!("{list}'"), "b", "']\n", "bytes: no file has one"),
        (&format!("{task}[splits]\n"), "s", " = 0\n", "1 to 100 characters"),
    ] {
        let count = ((8 << 20) - start.len() - end.len()) / again.len();
        std::fs::write(root.path().join("dataset.toml"), [start, &again.repeat(count), end].concat()).unwrap();
        let clock = Instant::now();
        let (message, bytes) = during(|| {
            let folder = FolderDescription::read(root.path())
                .and_then(|description| Folder::described(root.path(), description.unwrap()));
            folder.map_or_else(|error| error.to_string(), |folder| format!("{} faults", folder.faults().len()))
        });
        let of = format!("{start:.40}{again}: {message:.300}");
        assert!(message.contains(words) && message.len() < 1000, "{of}");
        assert!(bytes.peak < 1 << 30, "{} bytes: {of}", bytes.peak);
        assert!(clock.elapsed() < Duration::from_secs(20), "{:?}: {of}", clock.elapsed());
    }
}
