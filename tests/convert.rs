//! The example `convert`: folders that libraries and this crate open, and ids of the hub as sources.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "../examples/convert.rs"]
#[allow(dead_code)]
mod example;
#[path = "common/server.rs"]
#[allow(dead_code)]
mod server;

use clap::Parser;
use serde_json::{Value, json};
use server::{Model, Server};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tadformer::TADFormer;
use tadformer::checkpoint::Checkpoint;
use tadformer::heads::HrNetConfig;
use tadformer::model::{BackboneFile, ModelFile, OpenOptions, Stored};
use tadformer::swin::SwinConfig;
use tadformer::swin::names::Family;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// As on a command line.
fn convert(source: impl AsRef<Path>, destination: &Path, more: &[&str]) -> Result<(), String> {
    let (source, destination) = (source.as_ref().to_str().unwrap(), destination.to_str().unwrap());
    let line = [&["convert", source, destination], more].concat();
    example::convert(example::Options::try_parse_from(line).unwrap()).map_err(|e| format!("{e:#}"))
}

const LIBRARIES: [(&str, Family); 2] = [("timm", Family::Timm), ("transformers", Family::Transformers)];

#[test]
fn a_folder_that_is_written_for_a_library_is_read_with_the_same_sizes_and_weights() {
    for source in [
        "swin_w4_128/transformers",
        "swin_w4_128/timm",
        "swin_w7_224/original.pth",
        "families/SwinForImageClassification",
        "families/SwinModel",
        "families/torchvision.pth",
    ] {
        let source = golden(source);
        let config = source.join("config.json");
        let given = BackboneFile::open(&source).unwrap();
        let want = if config.is_file() { SwinConfig::of_config(config).unwrap() } else { given.config().clone() };
        for (library, family) in LIBRARIES {
            let folder = tempfile::tempdir().unwrap();
            convert(&source, folder.path(), &["--to", library]).unwrap();
            assert_eq!(SwinConfig::of_config(folder.path().join("config.json")).unwrap(), want);
            let file = BackboneFile::open(folder.path()).unwrap();
            assert_eq!(file.report().family, family);
            assert_eq!(file.digest().unwrap(), given.digest().unwrap());
            let builder = TADFormer::builder_from_pretrained(folder.path()).unwrap();
            assert_eq!(builder.config().swin, want);
            let head = HrNetConfig::new(vec![2; want.stages()]);
            assert_eq!(builder.rank(1).head(head).build().unwrap().base().digest, given.digest().unwrap());
            let mut names: Vec<String> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["config.json", "model.safetensors"]);
        }
    }
}

#[test]
fn a_configuration_that_says_the_same_is_kept_and_another_is_never_overwritten() {
    let source = golden("families/SwinForImageClassification/model.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let (config, weights) = (folder.path().join("config.json"), folder.path().join("model.safetensors"));
    // Somebody's own, with names for the classes and another drop-path.
    let own = std::fs::read_to_string(golden("families/SwinForImageClassification/config.json")).unwrap();
    std::fs::write(&config, &own).unwrap();
    convert(&source, &weights, &["--to", "transformers"]).unwrap();
    assert_eq!(std::fs::read_to_string(&config).unwrap(), own);
    std::fs::remove_file(&weights).unwrap();
    let changed = |key: &str, value: Value| {
        let mut config: Value = serde_json::from_str(&own).unwrap();
        config[key] = value;
        config.to_string()
    };
    for other in [
        changed("window_size", json!(4)),
        changed("id2label", json!({ "0": "one" })),
        changed("qkv_bias", json!(false)),
        changed("model_type", json!("vit")),
        std::fs::read_to_string(golden("swin_w4_128/timm/config.json")).unwrap(),
        "{".to_owned(),
    ] {
        std::fs::write(&config, &other).unwrap();
        let message = convert(&source, folder.path(), &["--to", "transformers"]).unwrap_err();
        assert!(message.contains("config.json") && message.contains("write to another folder"), "{message}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), other);
        assert!(!weights.exists(), "nothing is written then");
    }
    convert(&source, folder.path(), &["--to", "full"]).unwrap();
    assert!(weights.exists(), "the crate's own names need no configuration");
}

#[test]
fn a_configuration_of_other_sizes_than_the_tensors_is_not_passed_on() {
    let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tensors = golden("families/SwinForImageClassification/model.safetensors");
    std::fs::copy(&tensors, source.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(golden("families/SwinForImageClassification/config.json")).unwrap();
    let config = config.replace("\"window_size\": 2", "\"window_size\": 4");
    std::fs::write(source.path().join("config.json"), config).unwrap();
    let message = convert(source.path(), out.path(), &["--to", "timm"]).unwrap_err();
    assert!(message.contains("windows [2, 2]") && message.contains("says") && message.contains("[4, 4]"), "{message}");
    convert(source.path().join("model.safetensors"), out.path(), &["--to", "timm"]).unwrap();
}

#[test]
fn a_folder_with_an_adapter_and_its_backbone_becomes_one_file() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = common::builder().build().unwrap();
    model.save_adapter(folder.path().join("adapter.safetensors")).unwrap();
    convert(folder.path(), out.path(), &[]).unwrap();
    let file = ModelFile::open(out.path().join("model.safetensors")).unwrap();
    assert_eq!((file.stored(), file.config(), file.base()), (Stored::Full, model.config(), model.base()));
    // And back.
    convert(out.path(), &out.path().join("adapter.safetensors"), &["--to", "adapter"]).unwrap();
    assert!(TADFormer::from_adapter(out.path()).is_ok());
    // Of a trained model the backbone as it is now.
    let swin = out.path().join("swin");
    std::fs::create_dir(&swin).unwrap();
    convert(out.path().join("model.safetensors"), &swin, &["--to", "timm"]).unwrap();
    assert_eq!(TADFormer::builder_from_pretrained(&swin).unwrap().config().swin, model.config().swin);
}

/// This test binary again, as another process whose environment names the hub.
fn with_hub(server: &Server, does: &str, out: &Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", does])
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", server.endpoint())
        .env("HF_HUB_CACHE", out.join("cache"))
        .env("CONVERT_OUT", out)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn ids_of_swins_and_of_adapters_are_sources() {
    let (server, out) = (Server::start(), tempfile::tempdir().unwrap());
    server.put("someone/swin", Model::of_folder(&golden("swin_w4_128/transformers")));
    let model = TADFormer::builder_from_pretrained(golden("swin_w4_128/timm")).unwrap().rank(2).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    model.save_adapter(folder.path().join("adapter.safetensors")).unwrap();
    server.put("colleague/rooms", Model::of_folder(folder.path()));
    with_hub(&server, "what_is_converted_of_the_hub", out.path());
    let full = TADFormer::open(out.path().join("full.safetensors"), &OpenOptions::default()).unwrap();
    assert_eq!((full.config(), full.base()), (model.config(), model.base()));
    let swin = BackboneFile::open(out.path().join("swin")).unwrap();
    assert_eq!((swin.report().family, swin.digest().unwrap()), (Family::Timm, model.base().digest.clone()));
    let want = SwinConfig::of_config(golden("swin_w4_128/transformers/config.json")).unwrap();
    assert_eq!(SwinConfig::of_config(out.path().join("swin/config.json")).unwrap(), want);
}

#[test]
#[ignore = "another test runs it in a process of its own"]
fn what_is_converted_of_the_hub() {
    let out = PathBuf::from(std::env::var("CONVERT_OUT").unwrap());
    let swin = out.join("swin");
    std::fs::create_dir(&swin).unwrap();
    convert("someone/swin", &swin, &["--to", "timm"]).unwrap();
    convert("colleague/rooms", &out.join("full.safetensors"), &[]).unwrap();
    convert("colleague/rooms", &out.join("other.safetensors"), &["--backbone", "someone/swin"]).unwrap();
    assert!(Checkpoint::open(out.join("other.safetensors")).is_ok());
    let message = convert("someone/nothing", &swin, &[]).unwrap_err();
    assert!(message.contains("someone/nothing: no such model"), "{message}");
    // Paths that are mistyped are not asked for.
    let message = convert("runs/rooms.safetensors", &swin, &[]).unwrap_err();
    assert!(message.contains("no such file"), "{message}");
}
