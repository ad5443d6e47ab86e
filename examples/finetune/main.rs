//! The main job: fine-tune one frozen Swin for several dense tasks, validate, save the adapter, draw what it learnt.
//!
//!     cargo run --release --example finetune
//!
//! With no arguments it renders its own scenes, builds a small model and trains for a few minutes on two cores.

#[path = "../shared/download.rs"]
mod download;
mod report;
#[macro_use]
#[path = "../shared/say.rs"]
mod say;
#[path = "../shared/stop.rs"]
mod stop;
#[path = "../shared/threads.rs"]
mod threads;

use anyhow::Context;
use candle_core::DType;
use clap::Parser;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tadformer::data::{BatchOptions, Batches};
use tadformer::files::create_folder;
use tadformer::heads::HrNetConfig;
use tadformer::hub::Hub;
use tadformer::ops::GradientCheckpointing;
use tadformer::report::{CardFile, ModelCard};
use tadformer::scenes::Scenes;
use tadformer::swin::SwinConfig;
use tadformer::train::{Ending, ProgressBar, TrainConfig, Trainer, evaluate, evaluate_constant};
use tadformer::{Batch, TADFormer, TaskSet, Tuning};

#[derive(Parser)]
#[command(about = "Fine-tunes one frozen Swin for several dense tasks on rendered scenes")]
struct Options {
    /// `small`, a preset such as swin-tiny (both drawn at random), a checkpoint's path, or a model's id on the Hugging Face hub
    #[arg(long, default_value = "small")]
    backbone: String,
    /// Tasks of the scenes and their outputs
    #[arg(long, default_value = "semseg=7,human_parts=7,sal=1,normals=3,edge=1,depth=1")]
    tasks: TaskSet,
    /// decoders-only, bitfit, low-rank-only, tadformer or everything
    #[arg(long, default_value = "tadformer")]
    tuning: Tuning,
    /// Rank of the low-rank paths
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Training steps
    #[arg(long, default_value_t = 120)]
    steps: usize,
    /// Images of a batch
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Batches of a step: their gradients are added up
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Make blocks' intermediate values again in backward: less memory, more time
    #[arg(long)]
    checkpoint: bool,
    /// Side of the images
    #[arg(long, default_value_t = 96)]
    image: usize,
    /// Scenes to validate on
    #[arg(long, default_value_t = 48)]
    validation: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Seed of weights, scenes and dropout
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32 or f64
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// The run's folder: adapter, losses, plots, panel
    #[arg(long, default_value = "runs/finetune")]
    out: PathBuf,
    /// Print a last line of figures as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let (options, start, stop) = (Options::parse(), Instant::now(), stop::on_signals()?);
    threads::take(options.threads)?;
    tadformer::runtime::keep_freed_memory();
    create_folder(&options.out)?;
    let device = tadformer::runtime::parse_device(&options.device)?;
    let model = build(&options, &device)?;
    say!("{}\n", model.parameters());

    let size = (options.image, options.image);
    let scenes = Arc::new(Scenes::new(options.seed.wrapping_mul(2), 20_000, size)?);
    let held_out = Arc::new(Scenes::new(options.seed.wrapping_mul(2) + 1, options.validation, size)?);
    let batches = BatchOptions { dtype: options.dtype, device, ..BatchOptions::new(options.batch) };
    let validation = || Batches::once(held_out.clone(), &batches);

    let goes_on = |_: &tadformer::Result<Batch>| !stop.load(Ordering::Relaxed);
    let seen = Batches::once(scenes.clone(), &batches)?.take(200 / options.batch + 1).take_while(goes_on);
    let constant = evaluate_constant(&options.tasks, seen, validation()?.take_while(goes_on))?;
    let before = evaluate(&model, validation()?.take_while(goes_on))?;
    anyhow::ensure!(!stop.load(Ordering::Relaxed), "stopped before the first step, as asked: nothing was trained");
    let config = TrainConfig {
        seed: options.seed,
        accumulate: options.accumulate,
        gradient_checkpointing: if options.checkpoint { GradientCheckpointing::On } else { GradientCheckpointing::Off },
        validate_every: (options.steps / 5).max(1),
        ..TrainConfig::new(options.rate, options.steps, options.out.join("adapter.safetensors"))
    };
    let mut trainer = Trainer::new(&model, config)?.with_reference(constant.primary())?.with_stop_flag(stop);
    let training = Instant::now();
    let stream = Batches::shuffled(scenes, options.seed, &batches)?;
    let run = trainer.run(stream, validation, &mut ProgressBar::new(options.steps))?;
    let images_per_second =
        (run.history.steps().len() * options.batch * options.accumulate) as f64 / training.elapsed().as_secs_f64();

    if let Ending::Stopped { after } = run.ending {
        say!("stopped after {after} steps, as asked");
    }
    let rows = report::rows(&constant, &before, &run.best);
    say!("\n{}", report::table(&rows));
    run.history.write_csv(&options.out.join("losses.csv"))?;
    report::plot(&run.history, &options.out.join("losses.svg"))?;
    report::panel(&model, held_out.as_ref(), 3, &options.out.join("panel.png"))?;
    let adapter = options.out.join("adapter.safetensors");
    if let CardFile::Kept(card) = ModelCard::of(&model).scores(report::scores(&rows)).write_beside(&adapter)? {
        say!("{} was changed by hand and stays as it is", card.display());
    }
    let adapter_bytes = std::fs::metadata(adapter)?.len();
    say!(
        "best after {} steps; adapter of {:.1} MB, its card, losses and panel in {}",
        run.best_step,
        adapter_bytes as f64 / 1e6,
        options.out.display()
    );
    if options.json {
        say!("{}", report::json(&rows, &model, images_per_second, start.elapsed(), adapter_bytes));
    }
    Ok(())
}

/// A small model by default, else a preset, a checkpoint or a model of the hub.
fn build(options: &Options, device: &candle_core::Device) -> anyhow::Result<TADFormer> {
    let builder = match options.backbone.as_str() {
        "small" => {
            let sizes = SwinConfig {
                embed_dim: 48,
                depths: vec![2, 2, 2, 2],
                num_heads: vec![2, 4, 8, 16],
                window: 6,
                drop_path: 0.0,
                ..SwinConfig::tiny()
            };
            TADFormer::builder(sizes).head(HrNetConfig::new([16, 24, 32, 48]))
        }
        path if Path::new(path).exists() => TADFormer::builder_from_pretrained(path)?,
        id if id.contains('/') => TADFormer::builder_from_hub(id, &Hub::default().progress(download::bar()))?,
        preset => {
            let unknown = "--backbone: no file or folder of this name, no OWNER/NAME of the hub, and no preset";
            TADFormer::builder(preset.parse().context(unknown)?)
        }
    };
    let builder = builder.image_size(options.image).tasks(options.tasks.clone()).tuning(options.tuning, options.rank);
    Ok(builder.seed(options.seed).dtype(options.dtype).device(device).build()?)
}
