//! How many images a second a data set gives: files read and decoded, transforms applied, batches made.

use crate::peak_rss_mb;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tadformer::data::{BatchOptions, Batches, Layout, Recipe, Transformed, open_dataset};

#[derive(Args, Serialize)]
pub struct Options {
    /// A folder of images and labels, PASCAL_MT or NYUD_MT.
    #[arg(long)]
    data: PathBuf,
    /// The split; train of the published sets, and of a folder all where none is named.
    #[arg(long)]
    split: Option<String>,
    /// own, pascal or nyud; by default as the data set's layout asks.
    #[arg(long)]
    recipe: Option<Recipe>,
    /// Side of the image in pixels.
    #[arg(long, default_value_t = 448)]
    image: usize,
    /// Images at a time.
    #[arg(long, default_value_t = 2)]
    batch: usize,
    /// Threads that read.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Images that are timed, at least; the set is gone through again and again.
    #[arg(long, default_value_t = 200)]
    images: usize,
}

#[derive(Serialize)]
struct Report {
    mode: &'static str,
    #[serde(flatten)]
    options: Options,
    images_per_second: f64,
    peak_rss_mb: Option<u64>,
}

/// Reads as fast as it goes, with nobody who would need time for the batches.
pub fn profile(options: Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.images > 0, "--images: expected at least 1, got 0");
    let dataset = open_dataset(&options.data, options.split.as_deref())?;
    let recipe = options.recipe.unwrap_or(Layout::of(&options.data).recipe());
    let transforms = recipe.train((options.image, options.image))?;
    let batches = BatchOptions { workers: options.workers, ..BatchOptions::new(options.batch) };
    let mut batches = Batches::shuffled(Arc::new(Transformed::new(dataset, transforms, 0)), 0, &batches)?;
    // The first batches of each thread take fresh memory.
    for batch in batches.by_ref().take(2 * options.workers) {
        batch?;
    }
    let (start, mut images) = (Instant::now(), 0);
    for batch in batches {
        images += batch?.len();
        if images >= options.images {
            break;
        }
    }
    let images_per_second = images as f64 / start.elapsed().as_secs_f64();
    let options = Options { recipe: Some(recipe), ..options };
    println!(
        "{}",
        serde_json::to_string(&Report { mode: "loader", options, images_per_second, peak_rss_mb: peak_rss_mb() })?
    );
    Ok(())
}
