//! What the command line says.

use candle_core::DType;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use tadformer::Tuning;
use tadformer::data::{BatchOptions, Recipe, Unreadable};
use tadformer::heads::HeadConfig;
use tadformer::ops::GradientCheckpointing;

#[derive(Parser)]
#[command(about = "Fine-tunes one frozen Swin for several dense tasks, on your own images or on rendered scenes")]
pub struct Options {
    /// The data set: a folder of your own, PASCAL_MT or NYUD_MT; without one scenes are rendered
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The split to train on
    #[arg(long, default_value = "train", requires = "data")]
    pub split: String,
    /// The split to validate on
    #[arg(long, default_value = "val", requires = "data")]
    pub validation_split: String,
    /// own, pascal or nyud: what training does to images and labels; by default as the data set's layout asks
    #[arg(long, requires = "data")]
    pub recipe: Option<Recipe>,
    /// What becomes of an image or a label that cannot be read
    #[arg(long, value_enum, default_value_t = Damaged::Refuse, requires = "data")]
    pub unreadable: Damaged,
    /// Tasks of the data set, such as semseg,depth; all of them by default
    #[arg(long)]
    pub tasks: Option<String>,
    /// `small`, a preset such as swin-tiny (both drawn at random), a checkpoint's path, or a model's id on the Hugging Face hub
    #[arg(long, default_value = "small")]
    pub backbone: String,
    /// decoders-only, bitfit, low-rank-only, tadformer or everything
    #[arg(long, default_value = "tadformer")]
    pub tuning: Tuning,
    /// The tasks' decoders, of the published sizes: hrnet, hrnet-shared, segformer, aspp or linear; without it hrnet, for `small` a
    /// narrower one
    #[arg(long)]
    pub head: Option<HeadConfig>,
    /// Rank of the low-rank paths
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// Training steps
    #[arg(long, default_value_t = 120)]
    pub steps: usize,
    /// Train for so many passes over the data set, whatever the steps that takes
    #[arg(long, conflicts_with = "steps", requires = "data")]
    pub epochs: Option<usize>,
    /// Images of a batch
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Batches of a step: their gradients are added up
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,
    /// Make blocks' intermediate values again in backward: less memory, more time
    #[arg(long)]
    pub checkpoint: bool,
    /// Side of the images: 96 for scenes and 224 for others where nothing is said
    #[arg(long)]
    pub image: Option<usize>,
    /// Images to validate on: 48 scenes, or of a split all, where nothing is said; of a split whole batches
    #[arg(long)]
    pub validation: Option<usize>,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3)]
    pub rate: f64,
    /// Seed of weights, scenes, what is changed in images, and dropout
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// f32 or f64
    #[arg(long, default_value = "f32")]
    pub dtype: DType,
    /// The run's folder: adapter, losses, plots, panel
    #[arg(long, default_value = "runs/finetune")]
    pub out: PathBuf,
    /// Print a last line of figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Damaged {
    /// The run ends with an error that names it
    Refuse,
    /// It is left out, counted and told at the end
    Skip,
}

impl Options {
    /// The side of the images that the model sees.
    pub fn image(&self) -> usize {
        self.image.unwrap_or(if self.data.is_some() { 224 } else { 96 })
    }

    /// Steps on so many images.
    pub fn steps(&self, images: usize) -> usize {
        let a_step = (self.batch * self.accumulate).max(1);
        self.epochs.map_or(self.steps, |epochs| epochs.saturating_mul(images).div_ceil(a_step))
    }

    pub fn checkpointing(&self) -> GradientCheckpointing {
        if self.checkpoint { GradientCheckpointing::On } else { GradientCheckpointing::Off }
    }

    pub fn batches(&self, device: candle_core::Device) -> BatchOptions {
        let unreadable = match self.unreadable {
            Damaged::Refuse => Unreadable::Refuse,
            Damaged::Skip => Unreadable::Skip,
        };
        BatchOptions { dtype: self.dtype, device, unreadable, ..BatchOptions::new(self.batch) }
    }
}
