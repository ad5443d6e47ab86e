//! Each task's map of any photos.
//!
//!     cargo run --release --example predict -- runs/finetune/adapter.safetensors photo.jpg photos/ --out maps

#[path = "shared/download.rs"]
mod download;
#[path = "shared/open.rs"]
mod open;
#[macro_use]
#[path = "shared/say.rs"]
mod say;
#[path = "shared/threads.rs"]
mod threads;

use clap::Parser;
use std::path::{Path, PathBuf};
use tadformer::Predictor;
use tadformer::data::PIXEL_LIMIT;
use tadformer::files::create_folder;

#[derive(Parser)]
#[command(about = "Predicts every task's map of photos, and draws it")]
struct Options {
    /// An adapter or a full export: a file, a folder that holds one, or a model's id on the Hugging Face hub
    adapter: PathBuf,
    /// PNG or JPEG files of any size, or folders of them
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// The backbone, where it neither lies beside the adapter nor is published: a checkpoint's path, or an id
    #[arg(long)]
    backbone: Option<PathBuf>,
    /// Where the pictures go
    #[arg(long, default_value = "maps")]
    out: PathBuf,
    /// Write raw arrays as well: u8 classes, f32 normals, probabilities and depths
    #[arg(long)]
    npy: bool,
    /// Most megapixels of a photo: a small file can announce many
    #[arg(long, default_value_t = PIXEL_LIMIT / MEGA)]
    megapixels: u64,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: String,
}

const MEGA: u64 = 1_000_000;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    threads::take(0)?;
    let open = open::options(options.backbone, &options.device)?;
    let pixels = options.megapixels.saturating_mul(MEGA);
    let predictor = Predictor::open(&options.adapter, &open)?.with_pixel_limit(pixels);
    create_folder(&options.out)?;
    for photo in tadformer::data::photos(&options.photos)? {
        let name = photo.file_stem().map_or("photo".into(), |stem| stem.to_string_lossy().into_owned());
        for prediction in predictor.predict_file(&photo)? {
            let path = options.out.join(format!("{name}-{}", prediction.task().name()));
            prediction.save_picture(with_ending(&path, "png"))?;
            if options.npy {
                prediction.save_npy(with_ending(&path, "npy"))?;
            }
        }
        say!("{} -> {}", photo.display(), options.out.join(format!("{name}-*")).display());
    }
    Ok(())
}

/// Adds an ending, whatever dots the photo's name has.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}.{ending}", path.display()))
}
