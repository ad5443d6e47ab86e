//! Time and weigh the model, to be compared with another implementation on the same machine: the same options and the same
//! JSON keys as the PyTorch peer has.
//!
//!     cargo run --release --example profile -- infer --rank 64 --image 448 --batch 1
//!     cargo run --release --example profile -- train --rank 64 --image 448 --batch 2
//!
//!     cargo run --release --example profile -- loader --data FOLDER --image 448 --workers 1
//!
//! `--trace` prints as well, to stderr, where the time goes: each kind of fused step with its calls, time and bytes, and each part
//! of the model with what candle's own steps take of it.
//!
//! `loader` reads, decodes and transforms a data set's images and labels, as a training's loader does, without a model.
//!
//! A training step is forward, the sum over tasks of the mean of the squared output, backward for the trained parameters, AdamW.

#[path = "../shared/backend.rs"]
mod backend;
mod loader;
mod trace;

use backend::Backend;
use clap::{Args, Parser, ValueEnum};
use serde::Serialize;
use std::time::{Duration, Instant};
use tadformer::candle_core::{DType, Device, Tensor};
use tadformer::layers::{Mode, TrainingPass};
use tadformer::ops::GradientCheckpointing;
use tadformer::runtime::peak_device_memory;
use tadformer::tad::{LowRank, Method};
use tadformer::train::{AdamW, AdamWConfig, Gradients};
use tadformer::{InferenceModel, SwinConfig, TADFormer, Task, TaskKind, TaskSet};
use trace::Listener;
use tracing::trace_span;

/// Prints one JSON line; of a model the median and least seconds of the runs, and the peak resident memory in MB.
#[derive(Parser)]
enum Command {
    /// A forward pass of the model merged for inference.
    Infer(Options),
    /// The encoder alone, with every task's features; not merged.
    Encode(Options),
    /// A training step.
    Train(Options),
    /// Samples of a data set, read and transformed.
    Loader(loader::Options),
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    Infer,
    Encode,
    Train,
}

#[derive(Clone, Copy, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Frozen {
    F32,
    Bf16,
    F16,
}

impl From<Frozen> for DType {
    fn from(frozen: Frozen) -> Self {
        match frozen {
            Frozen::F32 => Self::F32,
            Frozen::Bf16 => Self::BF16,
            Frozen::F16 => Self::F16,
        }
    }
}

#[derive(Args, Serialize)]
struct Options {
    /// Rank of the low-rank paths.
    #[arg(long, default_value_t = 64)]
    rank: usize,
    /// Side of the image in pixels.
    #[arg(long, default_value_t = 448)]
    image: usize,
    /// Images at a time.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Runs that are timed.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Runs before them that are not.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// Tasks; four is the peer's.
    #[arg(long, default_value_t = 4)]
    tasks: usize,
    /// Float type that the frozen matrices are stored in.
    #[arg(long, value_enum, default_value_t = Frozen::F32)]
    frozen: Frozen,
    #[command(flatten)]
    #[serde(flatten)]
    backend: Backend,
    /// Share of the low-rank paths' inputs that training drops; none in the peer.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Make steps' intermediate values again in backward.
    #[arg(long)]
    checkpoint: bool,
    /// Print where the time goes.
    #[arg(long)]
    #[serde(skip)]
    trace: bool,
    /// Threads; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

#[derive(Serialize)]
struct Report {
    mode: Work,
    #[serde(flatten)]
    options: Options,
    median_s: f64,
    min_s: f64,
    peak_rss_mb: Option<u64>,
    /// On a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_device_mb: Option<u64>,
}

/// The most memory this process has held, in MB, where the system tells.
fn peak_rss_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}

/// The peer's four tasks, or as many of one output each.
fn tasks(count: usize) -> tadformer::Result<TaskSet> {
    if count == 4 {
        return Ok(TaskSet::pascal());
    }
    let tasks = (0..count).map(|i| Task::named(format!("task{i}"), TaskKind::Depth, 1));
    TaskSet::new(tasks.collect::<tadformer::Result<_>>()?)
}

/// The model that the peer builds: no drop-path, weights drawn at random.
fn model(options: &Options, device: &Device) -> tadformer::Result<TADFormer> {
    let swin = SwinConfig { image_size: options.image, drop_path: 0.0, ..SwinConfig::tiny() };
    let method = Method::default().linears(LowRank::new(options.rank).dropout(options.dropout));
    let builder =
        TADFormer::builder(swin).method(method).tasks(tasks(options.tasks)?).frozen_dtype(options.frozen.into());
    builder.device(device).build()
}

/// What is timed, with what it needs.
enum Run {
    Infer(Box<InferenceModel>),
    Encode(Box<TADFormer>),
    Train(Box<Training>),
}

/// What a training step needs.
struct Training {
    model: TADFormer,
    optimizer: AdamW,
    pass: TrainingPass,
    checkpointing: GradientCheckpointing,
}

impl Run {
    fn new(work: Work, options: &Options, device: &Device) -> anyhow::Result<Self> {
        let model = model(options, device)?;
        Ok(match work {
            Work::Infer => Self::Infer(Box::new(model.merge()?)),
            Work::Encode => Self::Encode(Box::new(model)),
            Work::Train => {
                let optimizer = AdamW::new(model.ledger(), AdamWConfig::default())?;
                let checkpointing =
                    if options.checkpoint { GradientCheckpointing::On } else { GradientCheckpointing::Off };
                Self::Train(Box::new(Training { model, optimizer, pass: TrainingPass::seeded(0), checkpointing }))
            }
        })
    }

    fn once(&mut self, images: &Tensor) -> anyhow::Result<()> {
        match self {
            Self::Infer(model) => drop(model.forward(images)?),
            Self::Encode(model) => {
                for stage in model.stages(images, Mode::Eval)? {
                    for task in 0..model.config().tasks.len() {
                        stage.task(task).features()?;
                    }
                }
            }
            Self::Train(training) => training.step(images)?,
        }
        Ok(())
    }
}

impl Training {
    fn step(&mut self, images: &Tensor) -> anyhow::Result<()> {
        let Self { model, optimizer, pass, checkpointing } = self;
        let outputs = checkpointing.run(|| model.forward(images, Mode::Train(pass)))?;
        let part = trace_span!(target: "tadformer::model", "loss").entered();
        let losses = outputs.iter().map(|(_, output)| output.sqr()?.mean_all());
        let loss = Tensor::stack(&losses.collect::<tadformer::candle_core::Result<Vec<_>>>()?, 0)?.sum_all()?;
        drop(part);
        let part = trace_span!(target: "tadformer::model", "backward").entered();
        let grads = Gradients::of(model.ledger(), &loss.backward()?);
        drop(part);
        trace_span!(target: "tadformer::model", "optimizer").in_scope(|| Ok(optimizer.step(&grads, 1e-4)?))
    }
}

/// Runs one after another on the same images.
struct Runs {
    run: Run,
    images: Tensor,
}

impl Runs {
    fn new(work: Work, options: &Options, device: &Device) -> anyhow::Result<Self> {
        let images = Tensor::randn(0f32, 1.0, (options.batch, 3, options.image, options.image), &Device::Cpu)?;
        Ok(Self { run: Run::new(work, options, device)?, images: images.to_device(device)? })
    }

    /// So many runs one after another, and how long each took.
    fn repeat(&mut self, times: usize) -> anyhow::Result<Vec<Duration>> {
        let run = |_| {
            let start = Instant::now();
            self.run.once(&self.images)?;
            self.images.device().synchronize()?; // a device computes on after the call
            Ok(start.elapsed())
        };
        (0..times).map(run).collect()
    }

    /// [`Runs::repeat`], listening.
    fn traced(&mut self, times: usize) -> anyhow::Result<Vec<Duration>> {
        let listener = Listener::default();
        let times = tracing::subscriber::with_default(listener.clone(), || self.repeat(times))?;
        eprint!("{}", listener.report(times.iter().sum(), times.len()));
        Ok(times)
    }
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Infer(options) => profile(Work::Infer, options),
        Command::Encode(options) => profile(Work::Encode, options),
        Command::Train(options) => profile(Work::Train, options),
        Command::Loader(options) => loader::profile(options),
    }
}

fn profile(mode: Work, mut options: Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.repeat > 0, "--repeat: expected at least 1, got 0");
    let threads = if options.threads == 0 { std::thread::available_parallelism()?.get() } else { options.threads };
    options.threads = threads;
    tadformer::runtime::keep_freed_memory();
    tadformer::runtime::compute_on_this_thread(threads)?;
    let (times, peak_device_mb) = options.backend.run(|device| {
        let mut runs = Runs::new(mode, &options, device)?;
        runs.repeat(options.warmup)?;
        let times = if options.trace { runs.traced(options.repeat) } else { runs.repeat(options.repeat) }?;
        Ok((times, peak_device_memory(device)?.map(|bytes| bytes >> 20)))
    })?;
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    let (median_s, min_s) = (seconds[seconds.len() / 2], seconds[0]);
    let report = Report { mode, options, median_s, min_s, peak_rss_mb: peak_rss_mb(), peak_device_mb };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
