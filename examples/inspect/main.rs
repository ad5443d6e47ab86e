//! What a model looks at on a photo: each task's prompt attention, its dynamic filters, the gates, and how far the tasks' filters differ.
//!
//!     cargo run --release --example inspect -- runs/finetune/adapter.safetensors photo.jpg --out inspected

#[path = "../shared/download.rs"]
mod download;
mod draw;
#[path = "../shared/open.rs"]
mod open;
#[macro_use]
#[path = "../shared/say.rs"]
mod say;
mod table;
#[path = "../shared/threads.rs"]
mod threads;

use clap::Parser;
use std::path::PathBuf;
use tadformer::Predictor;
use tadformer::data::read_photo;
use tadformer::files::create_folder;
use tadformer::picture::{Panel, save_png};

#[derive(Parser)]
#[command(about = "Shows what a model looks at on a photo")]
struct Options {
    /// An adapter or a full export: a file, a folder that holds one, or a model's id on the Hugging Face hub
    adapter: PathBuf,
    /// A PNG or JPEG file of any size
    photo: PathBuf,
    /// The backbone, where it neither lies beside the adapter nor is published: a checkpoint's path, or an id
    #[arg(long)]
    backbone: Option<PathBuf>,
    /// Where the pictures go
    #[arg(long, default_value = "inspected")]
    out: PathBuf,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    threads::take(0)?;
    let open = open::options(options.backbone, &options.device)?;
    let predictor = Predictor::open(&options.adapter, &open)?;
    let photo = read_photo(&options.photo)?;
    let stages = predictor.inspect(&photo)?;
    let tasks = &predictor.model().config().tasks;
    create_folder(&options.out)?;

    say!("{}", table::gates(&stages)?);
    let save = |name: &str, what: &str, panel: Option<Panel>| -> anyhow::Result<()> {
        let path = options.out.join(name);
        match panel {
            Some(panel) => {
                save_png(&panel.draw(), &path)?;
                say!("{}: {what}", path.display());
            }
            None => say!("{}: not drawn, the model has none", path.display()),
        }
        Ok(())
    };
    save("attention.png", "where each task's prompts look", draw::attention(&stages, tasks, &photo)?)?;
    save("filters.png", "each task's filters", draw::filters(&stages, tasks, draw::Taps::Whole)?)?;
    save("filters-own.png", "the filters less the tasks' mean", draw::filters(&stages, tasks, draw::Taps::LessMean)?)?;
    let distances = table::distances(&stages)?;
    save("distances.png", "how far the tasks' filters point apart", draw::distances(distances.as_deref(), tasks))?;
    if let Some(distances) = distances {
        say!("\n{}", table::matrix(&distances, tasks));
        say!("{}", table::by_stage(&stages)?);
    }
    Ok(())
}
