//! How long a fresh process takes from a cached backbone to the first outputs.
//!
//!     cargo run --release --example coldstart
//!     cargo run --release --example coldstart -- --backbone microsoft/swin-tiny-patch4-window7-224
//!
//! Without a backbone it draws a Swin-T once and lays it into a cache as the Hugging Face hub's tools do, so that it is compared with its
//! digest as a download would be; each run is a process of its own that starts from its id, with the network out of reach.

use anyhow::Context;
use candle_core::{Device, Tensor};
use clap::Parser;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tadformer::layers::Mode;
use tadformer::{SwinConfig, TADFormer};

#[derive(Parser)]
#[command(about = "Times the way from a cached backbone to the first outputs")]
struct Options {
    /// A model's id, which must lie in the cache, or a checkpoint's path; without one a Swin-T is drawn
    #[arg(long)]
    backbone: Option<String>,
    /// Side of the image
    #[arg(long, default_value_t = 224)]
    image: usize,
    /// Fresh processes
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// What each of them does, with the backbone
    #[arg(long, hide = true)]
    once: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if options.once {
        println!("{}", once(options.backbone.as_deref().unwrap_or_default(), options.image)?);
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    let (backbone, drawn) = match &options.backbone {
        Some(backbone) => (backbone.clone(), None),
        None => (draw(cache.path())?, Some(cache.path())),
    };
    let runs = (0..options.runs).map(|_| run(&backbone, drawn, options.image)).collect::<anyhow::Result<Vec<_>>>()?;
    println!(
        "{:>12} {:>9} {:>9} {:>9} {:>9} {:>15}",
        "process ms", "load", "first", "again", "beyond", "process beyond"
    );
    let figure = |run: &Value, key: &str| run[key].as_f64().unwrap_or(f64::NAN);
    for run in &runs {
        let [process, load, first, again] = ["process", "load", "first", "again"].map(|key| figure(run, key));
        let (beyond, all) = (load + first - again, process - 2.0 * again);
        println!("{process:>12.0} {load:>9.0} {first:>9.0} {again:>9.0} {beyond:>9.0} {all:>15.0}");
    }
    Ok(())
}

/// One cold start, as a line of JSON, in milliseconds.
fn once(backbone: &str, side: usize) -> anyhow::Result<Value> {
    let start = Instant::now();
    let builder =
        TADFormer::builder_from_pretrained(backbone)?.tasks("semseg=21,normals=3,sal=1,human_parts=7".parse()?);
    let model = builder.rank(16).build()?;
    let load = milliseconds(start);
    let forward = || -> anyhow::Result<f64> {
        let image = Tensor::rand(-1f32, 1., (1, 3, side, side), &Device::Cpu)?;
        let start = Instant::now();
        let outputs = model.forward(&image, Mode::Eval)?;
        let sums = outputs.iter().map(|(_, map)| map.sum_all()?.to_scalar::<f32>());
        anyhow::ensure!(sums.sum::<candle_core::Result<f32>>()?.is_finite());
        Ok(milliseconds(start))
    };
    let first = forward()?;
    let again = forward()?;
    Ok(json!({ "load": load, "first": first, "again": again }))
}

/// Another process of this program; what is drawn lies in a cache of its own.
fn run(backbone: &str, cache: Option<&Path>, side: usize) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--once", "--backbone", backbone, "--image", &side.to_string()]).env("HF_HUB_OFFLINE", "1");
    if let Some(cache) = cache {
        command.env("HF_HUB_CACHE", cache);
    }
    let start = Instant::now();
    let output = command.output()?;
    let process = milliseconds(start);
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut run: Value = serde_json::from_slice(&output.stdout).context("no figures")?;
    run["process"] = process.into();
    Ok(run)
}

/// Puts a Swin-T that is drawn at random into a cache; gives its id.
fn draw(cache: &Path) -> anyhow::Result<String> {
    let commit = "0".repeat(40);
    let model = cache.join("models--nobody--swin-drawn");
    let snapshot = model.join("snapshots").join(&commit);
    std::fs::create_dir_all(&snapshot)?;
    std::fs::create_dir_all(model.join("refs"))?;
    std::fs::write(model.join("refs/main"), commit)?;
    let swin = TADFormer::builder(SwinConfig { image_size: 224, ..SwinConfig::tiny() }).rank(1).build()?;
    let adapter = cache.join("adapter.safetensors");
    swin.save_adapter(&adapter)?;
    let weights: PathBuf = cache.join(swin.base().file_name());
    let digest: String = Sha256::digest(std::fs::read(&weights)?).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::create_dir_all(model.join("blobs"))?;
    // A copy, as where there are no links: it is compared with its blob's digest like a link's content.
    std::fs::copy(&weights, snapshot.join("model.safetensors"))?;
    std::fs::rename(weights, model.join("blobs").join(digest))?;
    let config = json!({ "architecture": "swin_tiny_patch4_window7_224" });
    std::fs::write(snapshot.join("config.json"), config.to_string())?;
    Ok("nobody/swin-drawn".to_owned())
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
