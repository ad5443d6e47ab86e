//! Checkpoints of the released TADFormer and of MTLoRA as models: the same predictions, or a refusal that says why.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::{DType, Device, Tensor};
use common::distance;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tadformer::TADFormer;
use tadformer::checkpoint::Checkpoint;
use tadformer::files::write_tensors;
use tadformer::heads::HrNetConfig;
use tadformer::layers::Mode;
use tadformer::model::{BackboneFile, FileKind, OpenOptions, ReleasedCode, ReleasedFile};
use tadformer::params::Pretrained;
use tadformer::swin::names::Naming;
use tadformer::tad::{Gate, LowRank, Method, PerTask, Prompts, TaskFilterKind, TpcReading};

const TASKS: &str = "semseg=4,normals=3";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn twin() -> Checkpoint {
    Checkpoint::open(golden("released_w4_64.safetensors")).unwrap()
}

fn load(checkpoint: &Checkpoint, name: &str) -> Tensor {
    checkpoint.load(name, DType::F32, &Device::Cpu).unwrap()
}

/// The largest difference from the released model's outputs.
fn error(model: &TADFormer) -> f64 {
    let golden = twin();
    let outputs = model.forward(&load(&golden, "input"), Mode::Eval).unwrap();
    let error = |(task, got): (&tadformer::Task, &Tensor)| {
        distance(got, &load(&golden, &format!("output.{}", task.name()))).unwrap()
    };
    outputs.iter().map(error).fold(0.0, f64::max)
}

/// The released weights as safetensors in a folder of their own, after a change.
fn changed(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> PathBuf {
    let state = twin().under("state.");
    let mut tensors = state.names().map(|name| (name.to_owned(), load(&state, name))).collect();
    change(&mut tensors);
    let path = folder.join("changed.safetensors");
    write_tensors(&path, tensors.into_iter().collect(), None).unwrap();
    path
}

fn open(path: &Path, tasks: Option<&str>) -> tadformer::Result<ReleasedFile> {
    ReleasedFile::open(path, tasks.map(|tasks| tasks.parse().unwrap()).as_ref())
}

/// The method of the golden files, with the variants of the code that wrote one.
fn method(filter: TaskFilterKind, reading: TpcReading) -> Method {
    let prompts = Prompts::Learned { per_task: 1, gate: Gate::Learned { reading } };
    Method::none()
        .linears(LowRank::new(3).scale(4.0).dropout(0.05))
        .task_paths(PerTask::default().filter(filter).prompts(prompts))
}

fn refusal<T>(result: tadformer::Result<T>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn a_training_checkpoint_predicts_as_the_released_model() {
    let path = golden("released_w4_64.pth");
    assert_eq!(FileKind::of(&Checkpoint::open(&path).unwrap()).unwrap(), FileKind::Released);
    let file = open(&path, None).unwrap();
    let (config, report) = (file.config(), file.report());
    assert_eq!((file.code(), config.tasks.to_string().as_str()), (ReleasedCode::TADFormer, TASKS));
    assert_eq!((config.swin.image_size, config.swin.window, config.swin.drop_path), (64, 4, 0.2));
    assert_eq!(config.method, method(TaskFilterKind::Static { kernel: 3 }, TpcReading::Swapped));
    assert_eq!((&config.head, config.own_heads.len()), (&HrNetConfig::new([2, 2, 4, 4]).into(), 0));
    assert!(config.release.contains(Pretrained::Norms) && !config.release.contains(Pretrained::Reductions));
    assert_eq!((report.loaded.len(), report.unused.as_slice()), (4 + 8 * 13 + 9, [].as_slice()));
    assert!(error(&file.into_model(&OpenOptions::default()).unwrap()) < 1e-5);
}

#[test]
fn its_weights_alone_need_the_tasks_and_predict_the_same() {
    let path = golden("released_w4_64.safetensors");
    let model = open(&path, Some(TASKS)).unwrap().into_model(&OpenOptions::default()).unwrap();
    assert!(error(&model) < 1e-5);
    let message = refusal(open(&path, None));
    assert!(
        message.contains("order of its tasks, normals, semseg") && message.contains("in the order of training"),
        "{message}"
    );
    let swapped = open(&path, Some("normals=3,semseg=4")).unwrap().into_model(&OpenOptions::default()).unwrap();
    assert!(error(&swapped) > 1e-3, "the order is the prompts'");
}

#[test]
fn tasks_that_are_not_the_files_are_refused() {
    let pth = golden("released_w4_64.pth");
    for (tasks, words) in [
        ("normals=3,semseg=4", "expected semseg, normals"),
        ("semseg=4", "expected semseg, normals"),
        ("semseg=4,normals=3,sal=1", "got semseg, normals, sal"),
        ("semseg=5,normals=3", "expected 4 outputs"),
    ] {
        let message = refusal(open(&pth, Some(tasks)));
        assert!(message.contains(words), "{message}");
    }
    let file = open(&pth, Some(TASKS)).unwrap();
    assert_eq!(file.config().tasks.to_string(), TASKS);
}

#[test]
fn an_imported_model_is_saved_as_adapter_and_as_full_export() {
    let folder = tempfile::tempdir().unwrap();
    let model = open(&golden("released_w4_64.pth"), None).unwrap().into_model(&OpenOptions::default()).unwrap();
    let (adapter, full) = (folder.path().join("adapter.safetensors"), folder.path().join("full.safetensors"));
    model.save_adapter(&adapter).unwrap();
    model.save_full(&full).unwrap();
    for path in [&adapter, &full] {
        assert_eq!(FileKind::of(&Checkpoint::open(path).unwrap()).unwrap(), FileKind::Model);
        assert!(error(&TADFormer::open(path, &OpenOptions::default()).unwrap()) < 1e-5, "{}", path.display());
    }
    assert!(folder.path().join(model.base().file_name()).exists());
}

#[test]
fn an_import_onto_its_pretrained_swin_and_not_onto_another() {
    let folder = tempfile::tempdir().unwrap();
    let pth = golden("released_w4_64.pth");
    let pretrained = folder.path().join("pretrained.safetensors");
    // Where the training started: the same frozen weights, other norms.
    let tensors = {
        let file = BackboneFile::open(&pth).unwrap();
        file.save(&pretrained, Naming::Timm).unwrap();
        Checkpoint::open(&pretrained).unwrap()
    };
    let write = |name: &str, moved: &str| {
        let move_it = |name: &str| {
            let tensor = load(&tensors, name);
            if name.ends_with(moved) { (tensor + 0.5).unwrap() } else { tensor }
        };
        let path = folder.path().join(name);
        write_tensors(&path, tensors.names().map(|name| (name.to_owned(), move_it(name))).collect(), None).unwrap();
        OpenOptions { backbone: Some(path), ..OpenOptions::default() }
    };
    let options = write("start.safetensors", "norm1.weight");
    let model = open(&pth, None).unwrap().into_model(&options).unwrap();
    assert!(error(&model) < 1e-5);
    let adapter = folder.path().join("adapter.safetensors");
    model.save_adapter(&adapter).unwrap();
    assert!(error(&TADFormer::open(&adapter, &options).unwrap()) < 1e-5);
    let message =
        refusal(open(&pth, None).unwrap().into_model(&write("other.safetensors", "2.blocks.1.mlp.fc1.weight")));
    assert!(message.contains("`layers.2.blocks.1.mlp.fc1.weight` (1 in all)"), "{message}");
}

/// The released model as MTLoRA would have it: low-rank paths of each task instead of prompts and filters.
fn mtlora(tensors: &mut HashMap<String, Tensor>) {
    let of_tadformer = |name: &str| name.contains("prompt") || name.contains("lora_filter");
    tensors.retain(|name, _| !of_tadformer(name));
    let shared: Vec<_> = tensors
        .iter()
        .filter(|(name, _)| name.contains(".1.attn.proj.lora_shared_"))
        .map(|(n, t)| (n.clone(), t.clone()))
        .collect();
    for (name, tensor) in shared {
        for task in ["semseg", "normals"] {
            tensors.insert(format!("{}.{task}", name.replace("shared", "tasks")), tensor.clone());
        }
    }
}

#[test]
fn of_mtlora_the_backbone_and_the_decoders_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = changed(folder.path(), mtlora);
    let file = open(&path, None).unwrap();
    assert_eq!((file.code(), file.config().tasks.to_string().as_str()), (ReleasedCode::MTLoRA, "normals=3,semseg=4"));
    let unused = file.report().unused.clone();
    assert!(unused.iter().all(|name| name.contains(".lora_")), "{unused:?}");
    assert_eq!(unused.iter().filter(|name| name.ends_with("lora_tasks_A.semseg")).count(), 4);
    assert_eq!(unused.len(), 8 * 4 * 2 + 4 * 4);
    let model = file.into_model(&OpenOptions::default()).unwrap();
    let state = twin().under("state.");
    let entries: HashMap<String, Tensor> =
        model.ledger().entries().into_iter().map(|entry| (entry.name.clone(), entry.tensor().clone())).collect();
    for (ours, theirs) in [
        ("heads.normals.hidden.bias", "decoders.decoders.normals.last_layer.0.bias"),
        ("heads.normals.norm.running_var", "decoders.decoders.normals.last_layer.1.running_var"),
        ("layers.0.blocks.1.attn.qkv.weight", "backbone.layers.0.blocks.1.attn.qkv.linear.weight"),
        ("layers.1.downsample.norm.bias", "backbone.layers.0.downsample.norm.bias"),
    ] {
        assert_eq!(distance(&entries[ours], &load(&state, theirs)).unwrap(), 0.0, "{ours}");
    }
    // Its backbone alone is a Swin like any other, whether queries, keys and values are apart or not.
    let alone = |path: &Path| BackboneFile::open(path).unwrap();
    assert_eq!(alone(&path).report().loaded.len(), 4 + 8 * 13 + 9);
    let image = load(&twin(), "input");
    let features = |path: &Path| alone(path).swin(DType::F32, &Device::Cpu).unwrap().forward(&image).unwrap();
    let want = features(&path);
    let split = changed(folder.path(), |tensors| {
        mtlora(tensors);
        let whole: Vec<String> = tensors.keys().filter(|name| name.contains(".qkv.linear.")).cloned().collect();
        for name in whole {
            let parts = tensors.remove(&name).unwrap().chunk(3, 0).unwrap();
            for (part, tensor) in ["q", "k", "v"].into_iter().zip(parts) {
                tensors.insert(name.replace(".qkv.", &format!(".qkv.{part}.")), tensor);
            }
        }
    });
    assert_eq!(distance(&features(&split)[3].merged.tokens, &want[3].merged.tokens).unwrap(), 0.0);
}

#[test]
fn what_would_be_computed_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        refusal(
            open(&changed(folder.path(), |tensors| change(tensors)), Some(TASKS))
                .and_then(|file| file.into_model(&OpenOptions::default())),
        )
    };
    let name = "backbone.layers.1.blocks.0.mlp.fc1.lora_shared_scale";
    let zero = || Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let message = refuse(&|tensors| drop(tensors.insert(name.to_owned(), zero())));
    assert!(message.contains(name) && message.contains("does not compute"), "{message}");
    let message = refuse(&|tensors| tensors.retain(|name, _| !name.starts_with("decoders.")));
    assert!(message.contains("no decoder as HRNet's"), "{message}");
    let message = refuse(&|tensors| tensors.retain(|name, _| !name.starts_with("downsampler.semseg.downsample_1")));
    assert!(message.contains("PER_TASK_DOWNSAMPLER"), "{message}");
    let rows = || Tensor::zeros((3, 8), DType::F32, &Device::Cpu).unwrap();
    let message = refuse(&|tensors| drop(tensors.insert("backbone.task_prompts".to_owned(), rows())));
    assert!(message.contains("3 prompts") && message.contains("2 tasks"), "{message}");
    let message = refuse(&|tensors| drop(tensors.remove("backbone.layers.3.prompt_gate")));
    assert!(message.contains("`layers.3.gate` is missing"), "{message}");
    let message = refuse(&|tensors| drop(tensors.remove("backbone.layers.3.blocks.0.norm1.bias")));
    assert!(message.contains("`layers.3.blocks.0.norm1.bias` is missing"), "{message}");
    let message = refusal(open(&golden("families/timm.safetensors"), None));
    assert!(message.contains("no checkpoint of the released TADFormer"), "{message}");
}

#[test]
fn weights_of_the_corrected_code_have_its_filter() {
    let path = golden("tadformer_w4_64.safetensors");
    let file = open(&path, Some("semseg=5,normals=3,sal=1,human_parts=4")).unwrap();
    assert_eq!(file.config().method, method(TaskFilterKind::Dynamic { kernel: 3 }, TpcReading::Positions));
    let model = file.into_model(&OpenOptions::default()).unwrap();
    let golden = Checkpoint::open(&path).unwrap();
    let outputs = model.forward(&load(&golden, "input"), Mode::Eval).unwrap();
    for (task, got) in outputs.iter() {
        assert!(distance(got, &load(&golden, &format!("output.{}", task.name()))).unwrap() < 1e-4, "{task}");
    }
}
