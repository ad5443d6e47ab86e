//! The main job: fine-tune one frozen Swin for several dense tasks, validate, save the adapter, draw what it learnt.
//!
//!     cargo run --release --example finetune
//!     cargo run --release --example finetune -- --data FOLDER --backbone microsoft/swin-tiny-patch4-window7-224
//!
//! With no arguments it renders its own scenes, builds a small model and trains for a few minutes on two cores. The folder holds images and
//! labels of your own, PASCAL_MT or NYUD_MT: `tadformer::data::Folder` tells.

mod data;
#[path = "../shared/download.rs"]
mod download;
mod model;
mod options;
mod panel;
mod report;
#[macro_use]
#[path = "../shared/say.rs"]
mod say;
#[path = "../shared/stop.rs"]
mod stop;
#[path = "../shared/threads.rs"]
mod threads;

use clap::Parser;
use data::Data;
use options::Options;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tadformer::data::Layout;
use tadformer::files::create_folder;
use tadformer::report::{CardFile, ModelCard};
use tadformer::train::{Ending, ProgressBar, TrainConfig, Trainer, evaluate, evaluate_constant};
use tadformer::{Batch, Error};

fn main() -> anyhow::Result<()> {
    let (options, start, stop) = (Options::parse(), Instant::now(), stop::on_signals()?);
    threads::take(options.threads)?;
    tadformer::runtime::keep_freed_memory();
    create_folder(&options.out)?;
    let device = tadformer::runtime::parse_device(&options.device)?;
    let data = Data::of(&options, options.batches(device.clone()))?;
    let model = model::build(&options, &data.tasks, &device)?;
    say!("{}\n", model.parameters());
    tell_data(&options, &data);

    let goes_on = |_: &tadformer::Result<Batch>| !stop.load(Ordering::Relaxed);
    let validation = || tadformer::Result::Ok(data.validation()?.take_while(goes_on));
    let constant = evaluate_constant(&data.tasks, data.sample()?.take_while(goes_on), validation()?).map_err(told)?;
    let before = evaluate(&model, validation()?).map_err(told)?;
    anyhow::ensure!(!stop.load(Ordering::Relaxed), "stopped before the first step, as asked: nothing was trained");
    let steps = options.steps(data.train.len());
    let config = TrainConfig {
        seed: options.seed,
        accumulate: options.accumulate,
        gradient_checkpointing: options.checkpointing(),
        validate_every: (steps / 5).max(1),
        ..TrainConfig::new(options.rate, steps, options.out.join("adapter.safetensors"))
    };
    let mut trainer = Trainer::new(&model, config)?.with_reference(constant.primary())?.with_stop_flag(stop.clone());
    let (training, mut batches) = (Instant::now(), data.training()?);
    let run = trainer.run(&mut batches, || data.validation(), &mut ProgressBar::new(steps)).map_err(told)?;
    let images = run.history.steps().len() * options.batch * options.accumulate;
    let images_per_second = images as f64 / training.elapsed().as_secs_f64();

    if let Ending::Stopped { after } = run.ending {
        say!("stopped after {after} steps, as asked");
    }
    let rows = report::rows(&constant, &before, &run.best);
    say!("\n{}", report::table(&rows));
    let left_out = [batches.skipped().clone(), data.left_out_of_validation()];
    for (of, skipped) in ["the training", "a validation"].into_iter().zip(&left_out) {
        report::left_out(of, skipped).iter().for_each(|text| say!("{text}\n"));
    }
    run.history.write_csv(&options.out.join("losses.csv"))?;
    report::plot(&run.history, &options.out.join("losses.svg"))?;
    panel::panel(&model, data.validation.as_ref(), 3, &options.out.join("panel.png"))?;
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
        let left_out = left_out.map(|skipped| skipped.count);
        let run = report::Run { images_per_second, time: start.elapsed(), adapter_bytes, left_out };
        say!("{}", report::json(&rows, &model, &run));
    }
    Ok(())
}

/// What a data set from disk holds, before its training begins.
fn tell_data(options: &Options, data: &Data) {
    let Some(root) = &options.data else { return };
    let (train, validation) = (data.train.len(), data.validation.len());
    say!("{}: {train} images to train on, {validation} to validate on, tasks {}", root.display(), data.tasks);
    if Layout::of(root) == Layout::Folder && !root.join("dataset.toml").exists() {
        say!("found out, since there is no dataset.toml: the example `dataset` saves one, to give classes their names");
    }
    if options.backbone == "small" {
        say!("the backbone is small and knows nothing: --backbone microsoft/swin-tiny-patch4-window7-224 knows photos");
    }
    say!("");
}

/// With what helps where a sample could not be read.
fn told(error: Error) -> anyhow::Error {
    match error {
        unreadable @ Error::Dataset { .. } => anyhow::anyhow!(
            "{unreadable}\n--unreadable skip goes on without such images; the example `dataset` lists all that is wrong"
        ),
        error => error.into(),
    }
}
