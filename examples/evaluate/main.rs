//! What trained adapters score on a data set, side by side.
//!
//!     cargo run --release --example evaluate -- runs/finetune/adapter.safetensors --data FOLDER --out report.html
//!
//! The folder is one of your own, PASCAL_MT or NYUD_MT. The table is printed; `--out` writes it as a report for people (.html) or as
//! Markdown (.md), `--json` as JSON.

#[path = "../shared/download.rs"]
mod download;
#[path = "../shared/open.rs"]
mod open;
mod references;
#[macro_use]
#[path = "../shared/say.rs"]
mod say;
#[path = "../shared/stop.rs"]
mod stop;
#[path = "../shared/threads.rs"]
mod threads;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tadformer::TADFormer;
use tadformer::data::{Dataset, Layout, Recipe, Unreadable, open_dataset};
use tadformer::files::write_atomically;
use tadformer::metrics::{BoundaryRecipe, BoundaryRule, NYUD_DISTANCE, PASCAL_DISTANCE};
use tadformer::report::{EvaluatedModel, EvaluationReport};
use tadformer::train::{ComparedAt, EdgeScoring, ImageEvaluation, ImageOptions, evaluate_images};

#[derive(Parser)]
#[command(about = "Measures adapters on a data set and shows them side by side")]
struct Options {
    /// Adapters or full exports: files, folders that hold one, or ids on the Hugging Face hub
    #[arg(required = true)]
    adapters: Vec<PathBuf>,
    /// The data set: a folder of your own, PASCAL_MT or NYUD_MT
    #[arg(long)]
    data: PathBuf,
    /// Which of its images; `all` for all of a folder of your own
    #[arg(long, default_value = "val")]
    split: String,
    /// pascal, nyud or own: how images are brought to the model's size; by default as the data set's layout asks
    #[arg(long)]
    recipe: Option<Recipe>,
    /// Compare at each image's own size, not at the model's input size as papers do
    #[arg(long)]
    own_size: bool,
    /// Score edges by odsF too: plain or suppressed
    #[arg(long)]
    edges: Option<BoundaryRecipe>,
    /// Figures of models trained for each task alone, such as semseg=0.672,normals=17.97; PASCAL_MT's and NYUD_MT's are built in
    #[arg(long, default_value = "")]
    references: String,
    /// Only the first so many images
    #[arg(long)]
    images: Option<usize>,
    /// Best and worst images of each task in the report
    #[arg(long, default_value_t = 3)]
    examples: usize,
    /// Leave images out that cannot be read, and tell how many
    #[arg(long)]
    skip_unreadable: bool,
    /// The backbone, where it neither lies beside the adapter nor is published: a checkpoint's path, or an id
    #[arg(long)]
    backbone: Option<PathBuf>,
    /// Write the report: a name that ends in .html or .md
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print a last line of figures as JSON
    #[arg(long)]
    json: bool,
    /// cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> anyhow::Result<()> {
    let (options, stop) = (Options::parse(), stop::on_signals()?);
    threads::take(0)?;
    tadformer::runtime::keep_freed_memory();
    let form = options.out.as_deref().map(Form::of).transpose()?;
    let layout = Layout::of(&options.data);
    let dataset = open_dataset(&options.data, split(&options.split, layout))?;
    let images = options.images.unwrap_or(usize::MAX).min(dataset.len());
    let references = references::of(layout, &options.references)?;
    let size = if options.own_size { "each image's own size" } else { "the model's input size" };
    let mut report = EvaluationReport::new(title(&options), images, size);
    for adapter in &options.adapters {
        let model = measured(adapter, &options, layout, (&dataset, images), form, &stop)?;
        report.models.push(references::with(model, &references));
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    report.models.extend(references::published(layout).into_iter().map(|model| references::with(model, &references)));
    say!("{report}");
    if let (Some(path), Some(form)) = (&options.out, form) {
        write_atomically(path, |file| file.write_all(form.text(&report).as_bytes()))?;
        say!("written to {}", path.display());
    }
    if options.json {
        say!("{}", report.json());
    }
    Ok(())
}

/// One adapter's figures and, for a report, its best and worst images.
fn measured(
    adapter: &Path,
    options: &Options,
    layout: Layout,
    (dataset, images): (&Arc<dyn Dataset>, usize),
    form: Option<Form>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<EvaluatedModel> {
    let open = open::options(options.backbone.clone(), &options.device)?;
    let model = TADFormer::open(adapter, &open).with_context(|| format!("adapter {}", adapter.display()))?;
    let (trained, side) = (model.parameters().trained(), model.config().swin.image_size);
    let model = model.merge()?;
    let recipe = options.recipe.unwrap_or(layout.recipe());
    let how = ImageOptions {
        at: if options.own_size { ComparedAt::OwnSize } else { ComparedAt::InputSize },
        edges: options.edges.map(|recipe| edge_scoring(recipe, layout)),
        unreadable: if options.skip_unreadable { Unreadable::Skip } else { Unreadable::Refuse },
        ..ImageOptions::new(recipe.validation((side, side))?)
    };
    let bar = progress(images);
    let evaluation = evaluate_images(&model, dataset.clone(), &how, |_| {
        bar.inc(1);
        bar.position() < images as u64 && !stop.load(Ordering::Relaxed)
    })?;
    bar.finish_and_clear();
    tell_skipped(&evaluation);
    let examples = if matches!(form, Some(Form::Html)) { options.examples } else { 0 };
    let mut shown = evaluation.evaluated(&name_of(adapter), &model, dataset.as_ref(), &how, examples)?;
    shown.trained = Some(trained);
    shown.adapter_bytes = bytes_of(adapter);
    Ok(shown)
}

/// Of the adapter's file, which may be named by its folder; none for an id of the hub.
fn bytes_of(adapter: &Path) -> Option<u64> {
    let files = [adapter.to_owned(), adapter.join("adapter.safetensors")];
    files.iter().find_map(|path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)).map(|file| file.len())
}

/// NYUD's benchmark takes the edge label as a map of segments, so that a line counts with both its rims.
fn edge_scoring(recipe: BoundaryRecipe, layout: Layout) -> EdgeScoring {
    match layout {
        Layout::NyudV2 => EdgeScoring { recipe, distance: NYUD_DISTANCE, rule: BoundaryRule::Segments },
        _ => EdgeScoring { recipe, distance: PASCAL_DISTANCE, rule: BoundaryRule::Edges },
    }
}

fn tell_skipped(evaluation: &ImageEvaluation) {
    let skipped = evaluation.skipped();
    if skipped.count > 0 {
        say!("{} images were left out:", skipped.count);
        skipped.reasons.iter().for_each(|reason| say!("  {reason}"));
    }
}

fn progress(images: usize) -> ProgressBar {
    let style = "{bar:32} {pos}/{len} images, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(images as u64).with_style(style)
}

fn split(name: &str, layout: Layout) -> Option<&str> {
    (layout != Layout::Folder || name != "all").then_some(name)
}

fn title(options: &Options) -> String {
    let folder = options.data.canonicalize().unwrap_or_else(|_| options.data.clone());
    let name = folder.file_name().map_or("data".into(), |name| name.to_string_lossy().into_owned());
    format!("{name}, {}", options.split)
}

/// What tells an adapter from the others: its file's name, with its folder's where that is the usual one.
fn name_of(adapter: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = last(adapter).unwrap_or_else(|| adapter.display().to_string());
    match adapter.parent().and_then(last) {
        Some(folder) if name == "adapter.safetensors" => folder,
        _ => name,
    }
}

/// How a report is written, by the name of its file.
#[derive(Clone, Copy)]
enum Form {
    Html,
    Markdown,
}

impl Form {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => Ok(Self::Html),
            Some("md") => Ok(Self::Markdown),
            _ => anyhow::bail!("--out {}: expected a name that ends in .html or .md", path.display()),
        }
    }

    fn text(self, report: &EvaluationReport) -> String {
        match self {
            Self::Html => report.html(),
            Self::Markdown => report.markdown(),
        }
    }
}
