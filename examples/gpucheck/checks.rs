//! The checks by name, and what is printed of each.

use crate::{golden, threads, training, values};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use tadformer::candle_core::Device;
use tadformer::runtime::{device_name, keep_freed_memory, parse_device};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Check {
    /// Outputs and gradients of a tiny model.
    Values,
    /// The same with dropout and drop-path.
    Dropout,
    /// Golden files that PyTorch wrote.
    Golden,
    /// Three steps of AdamW.
    Adamw,
    /// Twenty steps of training on rendered scenes.
    Trainer,
    /// Eight threads on one model.
    Threads,
    /// A forward pass in half precision.
    Half,
}

impl Check {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, on: &Device, options: &Options) -> anyhow::Result<Verdict> {
        match self {
            Self::Values => values::check(on, values::Drops::Nothing),
            Self::Dropout => values::check(on, values::Drops::Seeded),
            Self::Golden => golden::check(on, &options.golden),
            Self::Adamw => training::adamw(on),
            Self::Trainer => training::trainer(on),
            Self::Threads => threads::check(on),
            Self::Half => values::half(on),
        }
    }
}

/// Whether a check passes, and the figures that say so.
pub struct Verdict {
    pub passes: bool,
    pub figures: Value,
}

#[derive(Parser)]
#[command(about = "Holds a device beside the CPU")]
struct Options {
    /// cpu, cuda, cuda:N, metal or metal:N
    #[arg(long, default_value = "cuda")]
    device: String,
    /// The folder of golden files
    #[arg(long, default_value = "tests/golden")]
    golden: PathBuf,
    /// These alone
    #[arg(value_enum)]
    checks: Vec<Check>,
}

pub fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    keep_freed_memory();
    let device = parse_device(&options.device)?;
    let all = if options.checks.is_empty() { Check::value_variants() } else { &options.checks };
    let mut failed = Vec::new();
    for check in all {
        let start = Instant::now();
        // A check that cannot be made is a line as well: the others are worth having.
        let verdict = check.run(&device, &options);
        let verdict =
            verdict.unwrap_or_else(|e| Verdict { passes: false, figures: json!({ "error": format!("{e:#}") }) });
        let seconds = start.elapsed().as_secs_f64();
        let (name, device, Verdict { passes, figures }) = (check.name(), device_name(&device), verdict);
        println!(
            "{}",
            json!({ "check": name, "device": device, "passes": passes, "seconds": seconds, "figures": figures })
        );
        if !passes {
            failed.push(name);
        }
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
