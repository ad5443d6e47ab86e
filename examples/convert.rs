//! Any checkpoint of a Swin, a TADFormer or the released code to one file.
//!
//!     cargo run --release --example convert -- microsoft/swin-tiny-patch4-window7-224 swin.safetensors --to timm
//!     cargo run --release --example convert -- swin_tiny_patch4_window7_224.pth swin-tiny/model.safetensors --to transformers
//!     cargo run --release --example convert -- OWNER/ADAPTER full.safetensors
//!     cargo run --release --example convert -- ckpt_epoch_299.pth adapter.safetensors --to adapter

#[macro_use]
#[path = "shared/say.rs"]
mod say;

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use std::path::{Path, PathBuf};
use tadformer::checkpoint::Checkpoint;
use tadformer::hub::Hub;
use tadformer::model::{BackboneFile, ConfigFile, FileKind, ModelFile, OpenOptions, ReleasedFile};
use tadformer::params::Group;
use tadformer::swin::names::Naming;
use tadformer::{Error, HubProblem, Printable, SwinConfig, TADFormer, TaskSet};

#[derive(Parser)]
#[command(
    about = "Converts a checkpoint of a Swin, a TADFormer or the released code",
    after_help = "Swins are read as transformers, timm, torchvision and the original code write them, with their classifiers or \
                  without, as safetensors or files of torch.save, which are read without executing anything. DESTINATION is \
                  safetensors of f32, written whole or not at all. For transformers or timm a config.json is written beside it: \
                  where DESTINATION is named model.safetensors, its folder is a model of that library \
                  (SwinModel.from_pretrained(FOLDER), timm.create_model(\"local-dir:FOLDER\", pretrained=True))."
)]
pub(crate) struct Options {
    /// A model's id on the Hugging Face hub, a folder, or a file: a Swin, an adapter or full export of this crate, or a training's
    /// checkpoint of the released TADFormer or MTLoRA
    source: String,
    /// The file to write; in a folder that exists, model.safetensors, or adapter.safetensors with --to adapter
    destination: PathBuf,
    /// What is written
    #[arg(long, value_enum, default_value_t = To::Full)]
    to: To,
    /// Tasks of a released checkpoint without its configuration, in the order of training: semseg=21,normals=3
    #[arg(long)]
    tasks: Option<TaskSet>,
    /// The pretrained Swin that a model was trained from: an id, folder or file
    #[arg(long)]
    backbone: Option<String>,
    /// Name every tensor that is left unused, not only the first few
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// Everything that this crate uses: of a Swin its backbone, of a TADFormer every weight with its configuration
    Full,
    /// What a TADFormer trained; a backbone that is not published is written beside it
    Adapter,
    /// The backbone under timm's names, with the last norm and the classifier where the source has them
    Timm,
    /// The backbone under the names of transformers' files on the hub, likewise
    Transformers,
}

fn main() -> anyhow::Result<()> {
    convert(Options::parse())
}

pub(crate) fn convert(mut options: Options) -> anyhow::Result<()> {
    if options.destination.is_dir() {
        let name = if options.to == To::Adapter { "adapter.safetensors" } else { "model.safetensors" };
        options.destination.push(name);
    }
    let source = located(&options.source)?;
    let path = match source {
        Source::Adapter(file) => {
            ensure!(options.tasks.is_none(), "--tasks is for released checkpoints: leave it out");
            return own(*file, &options);
        }
        Source::Path(path) => path,
    };
    let same = |a: &Path, b: &Path| a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    let in_folder = path.join("adapter.safetensors");
    let checkpoint = Checkpoint::open(if in_folder.is_file() { &in_folder } else { &path })?;
    ensure!(
        !same(checkpoint.path(), &options.destination),
        "source and destination are one file: write to another name"
    );
    let kind = FileKind::of(&checkpoint)?;
    ensure!(options.tasks.is_none() || kind == FileKind::Released, "--tasks is for released checkpoints: leave it out");
    ensure!(options.backbone.is_none() || kind != FileKind::Backbone, "--backbone is for models: leave it out");
    match kind {
        FileKind::Backbone => {
            let config = checkpoint.path().with_file_name("config.json");
            let mut file = BackboneFile::of(checkpoint)?;
            say!("read {}", file.report());
            // A file that was named alone may lie beside anything.
            if config.is_file() && !Path::new(&options.source).is_file() {
                file = file.with_config(&SwinConfig::of_config(config)?)?;
            }
            write_backbone(&file, &options)
        }
        FileKind::Released => released(checkpoint.path(), &options),
        FileKind::Model => own(ModelFile::open(checkpoint.path())?, &options),
    }
}

enum Source {
    Path(PathBuf),
    /// An adapter of the hub, which has its backbone from there as well.
    Adapter(Box<ModelFile>),
}

/// A path that exists as it is; anything else is an id on the hub, of an adapter or of a Swin.
fn located(source: &str) -> anyhow::Result<Source> {
    if Path::new(source).exists() {
        return Ok(Source::Path(source.into()));
    }
    let ending = Path::new(source).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ensure!(!["safetensors", "pth", "pt", "bin"].contains(&ending), "{source}: no such file: check the path");
    match ModelFile::from_hub(source, &Hub::default()) {
        Ok(file) => return Ok(Source::Adapter(Box::new(file))),
        Err(Error::Hub { problem: HubProblem::NoSuchFile { .. }, .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let builder = TADFormer::builder_from_pretrained(source)?;
    builder.checkpoint().map(|path| Source::Path(path.to_owned())).context("the hub gave no weights")
}

fn open(options: &Options) -> OpenOptions {
    OpenOptions { backbone: options.backbone.as_ref().map(PathBuf::from), ..OpenOptions::default() }
}

fn write_backbone(file: &BackboneFile, options: &Options) -> anyhow::Result<()> {
    let naming = match options.to {
        To::Full => Naming::Own,
        To::Timm => Naming::Timm,
        To::Transformers => Naming::Transformers,
        To::Adapter => bail!("{}: a Swin alone has no adapter: train one with the example finetune", options.source),
    };
    // First: a configuration that is in the way is told before anything is written.
    let config = file.save_config(&options.destination, naming)?;
    let written = file.save(&options.destination, naming)?;
    list_unused(&written.unused, options);
    say!("wrote {}, {} tensors, to {}", file.config(), written.names.len(), options.destination.display());
    if naming != Naming::Own
        && !written.names.iter().any(|name| ["norm.weight", "swin.layernorm.weight"].contains(&name.as_str()))
    {
        say!("without the last norm, which {} lacks: timm wants pretrained_strict=False then", options.source);
    }
    match config {
        ConfigFile::Written(path) => say!("wrote its sizes to {}", path.display()),
        ConfigFile::Kept(path) => say!("its sizes are in {}, which stays", path.display()),
        ConfigFile::None => {}
    }
    Ok(())
}

/// The first few names, or all.
fn list_unused(names: &[String], options: &Options) {
    let shown = if options.all { names.len() } else { names.len().min(8) };
    names[..shown].iter().for_each(|name| say!("unused: {}", Printable(name)));
    if shown < names.len() {
        say!("unused: {} more, which --all names", names.len() - shown);
    }
}

fn released(path: &Path, options: &Options) -> anyhow::Result<()> {
    let file = ReleasedFile::open(path, options.tasks.as_ref())?;
    let (config, report) = (file.config(), file.report());
    say!("read {:?}'s checkpoint, {} for {}: {report}", file.code(), config.swin, config.tasks);
    list_unused(&report.unused, options);
    model(file.into_model(&open(options))?, options)
}

fn own(file: ModelFile, options: &Options) -> anyhow::Result<()> {
    say!("read {:?} file, {} for {}", file.stored(), file.config().swin, file.config().tasks);
    model(file.into_model(&open(options))?, options)
}

fn model(model: TADFormer, options: &Options) -> anyhow::Result<()> {
    let destination = &options.destination;
    match options.to {
        To::Full => model.save_full(destination)?,
        To::Adapter => model.save_adapter(destination)?,
        To::Timm | To::Transformers => {
            let pretrained = model.ledger().entries().into_iter().filter(|e| matches!(e.group, Group::Pretrained(_)));
            let tensors = pretrained.map(|entry| (entry.name.clone(), entry.tensor().clone())).collect();
            say!("its backbone is written, norms and biases as they were trained");
            let file = BackboneFile::of(Checkpoint::from_tensors(tensors))?.with_config(&model.config().swin)?;
            return write_backbone(&file, options);
        }
    }
    say!("wrote the {} to {}", if options.to == To::Full { "full model" } else { "adapter" }, destination.display());
    say!("{}", model.parameters());
    Ok(())
}
