//! On which device a model computes, and by which definition of its steps.

use clap::{Args, ValueEnum};
use serde::Serialize;
use tadformer::candle_core::Device;
use tadformer::ops::Definition;
use tadformer::runtime::{Precision, parse_device};

/// Options of programs that measure or compare.
#[derive(Args, Serialize)]
pub struct Backend {
    /// cpu, cuda, cuda:N, metal or metal:N.
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// How the model's steps are computed.
    #[arg(long, value_enum, default_value_t = Steps::Fused)]
    pub definition: Steps,
    /// Multiply f32 by a GPU's tensor cores, with 11 bits of each factor.
    #[arg(long)]
    pub tf32: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steps {
    /// By the crate's kernels, where there are some.
    Fused,
    /// By candle's primitives.
    Composed,
}

impl From<Steps> for Definition {
    fn from(steps: Steps) -> Self {
        match steps {
            Steps::Fused => Self::Fused,
            Steps::Composed => Self::Composed,
        }
    }
}

impl Backend {
    /// Runs `f` with what was asked for, on this device.
    pub fn run<R>(&self, f: impl FnOnce(&Device) -> anyhow::Result<R>) -> anyhow::Result<R> {
        if self.tf32 {
            Precision::Tf32.ask();
        }
        let device = parse_device(&self.device)?;
        Definition::from(self.definition).run(|| f(&device))
    }
}
