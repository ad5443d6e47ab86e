//! How long a fresh process takes from a cached backbone to the first outputs, and what a second adapter costs.
//!
//!     cargo run --release --example coldstart
//!     cargo run --release --example coldstart -- --backbone microsoft/swin-tiny-patch4-window7-224
//!
//! Without a backbone it draws a Swin-T once and lays it into a cache as the Hugging Face hub's tools do; each run is a process of
//! its own that starts from its id, with the network out of reach.

use anyhow::Context;
use candle_core::{Device, Tensor};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use tadformer::layers::Mode;
use tadformer::{SwinConfig, TADFormer};

#[derive(Parser)]
#[command(about = "Times the way from a cached backbone to the first outputs, and weighs a second adapter")]
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
        let (beyond, all) = (load + first - again, process - again - figure(run, "adapters"));
        println!("{process:>12.0} {load:>9.0} {first:>9.0} {again:>9.0} {beyond:>9.0} {all:>15.0}");
    }
    let [weights, adapter, grown] =
        ["weights", "adapter", "grown"].map(|key| runs.iter().map(|run| figure(run, key)).fold(f64::NAN, f64::max));
    println!("backbone of {weights:.1} MB; a second adapter of {adapter:.1} MB on it took {grown:.1} MB of memory");
    Ok(())
}

/// One cold start, as a line of JSON: milliseconds and megabytes.
fn once(backbone: &str, side: usize) -> anyhow::Result<Value> {
    let start = Instant::now();
    let builder = TADFormer::from_pretrained(backbone)?.tasks("semseg=21,normals=3,sal=1,human_parts=7".parse()?);
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
    let again = forward()?.min(forward()?);
    let start = Instant::now();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("adapter.safetensors");
    model.save_adapter(&path)?;
    drop(model.with_adapter(&path)?);
    let before = resident().unwrap_or(f64::NAN);
    let second = model.with_adapter(&path)?;
    let grown = resident().unwrap_or(f64::NAN) - before;
    let megabytes = |count: usize| 4.0 * count as f64 / 1e6;
    let (weights, adapter) = (megabytes(second.parameters().frozen()), megabytes(second.parameters().trained()));
    // The two forward passes for `again`, and all that has to do with adapters, are no part of a start.
    let adapters = milliseconds(start) + 2.0 * again;
    Ok(
        json!({ "load": load, "first": first, "again": again, "adapters": adapters, "weights": weights, "adapter": adapter,
        "grown": grown }),
    )
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
    std::fs::rename(weights, snapshot.join("model.safetensors"))?;
    let config = json!({ "architecture": "swin_tiny_patch4_window7_224" });
    std::fs::write(snapshot.join("config.json"), config.to_string())?;
    Ok("nobody/swin-drawn".to_owned())
}

/// Megabytes of this process in memory, where the system tells.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1e3)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
