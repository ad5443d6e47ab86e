//! The panel: image, label, prediction and error of each task.

use std::path::Path;
use tadformer::candle_core::{Device, Tensor};
use tadformer::data::Dataset;
use tadformer::layers::Mode;
use tadformer::picture::{
    DepthRange, Legend, MapColours, Panel, PanelRow, error_legend, error_picture, photo_picture, save_png,
};
use tadformer::predict::decode;
use tadformer::sample::IGNORE;
use tadformer::{Batch, Sample, TADFormer, Task, TaskKind, TaskSet};

/// Draws a few images, spread over the data set; those that cannot be read are passed over.
pub fn panel(model: &TADFormer, dataset: &dyn Dataset, count: usize, path: &Path) -> anyhow::Result<()> {
    let tasks = &model.config().tasks;
    let titles = tasks.iter().flat_map(|task| [task.name().to_owned(), "predicted".to_owned(), "error".to_owned()]);
    let mut panel = Panel::new(std::iter::once("image".to_owned()).chain(titles)).wrapped(1, 6);
    let count = count.min(dataset.len());
    let spread = (0..count).map(|row| row * dataset.len() / count);
    let samples: Vec<(usize, Sample)> = spread.filter_map(|at| Some((at, dataset.get(at).ok()?))).collect();
    let colours: Vec<MapColours> =
        tasks.iter().map(|task| colours(task, dataset, &samples)).collect::<Result<_, _>>()?;
    let mut drawn: Vec<Vec<Tensor>> = vec![Vec::new(); tasks.len()];
    for (at, sample) in &samples {
        let batch = Batch::stack(std::slice::from_ref(sample), model.ledger().dtype(), model.ledger().device())?;
        let outputs = model.forward(&batch.images, Mode::Eval)?;
        let (_, height, width) = sample.image.dims3()?;
        let mut row = vec![photo_picture(&sample.image)?];
        for (((task, output), colours), drawn) in outputs.iter().zip(&colours).zip(&mut drawn) {
            let predicted = decode(task, &output.squeeze(0)?, (height, width))?;
            let label = label_of(sample, task)?;
            row.push(colours.picture(&label)?);
            row.push(colours.picture(&predicted)?);
            row.push(error_picture(task.kind(), &predicted, &label)?);
            drawn.extend([label, predicted]);
        }
        panel.push(PanelRow::new(row).named(dataset.name(*at)));
    }
    for legend in legends(tasks, &colours, &drawn)? {
        panel = panel.legend(legend);
    }
    Ok(save_png(&panel.draw(), path)?)
}

/// A sample's label of a task, unknown everywhere where it has none.
fn label_of(sample: &Sample, task: &Task) -> tadformer::Result<Tensor> {
    let (_, height, width) = sample.image.dims3()?;
    let unknown = || Tensor::full(IGNORE, (task.kind().label_channels(), height, width), &Device::Cpu);
    Ok(sample.labels.get(task.name()).cloned().map_or_else(unknown, Ok)?)
}

/// A task's colours: its classes' names, one range for the depths of all images.
fn colours(task: &Task, dataset: &dyn Dataset, samples: &[(usize, Sample)]) -> tadformer::Result<MapColours> {
    let colours = MapColours::of(task.kind());
    let colours = match dataset.classes(task.name()) {
        Some(classes) => colours.classes(classes),
        None => colours,
    };
    let labels: Vec<&Tensor> = samples.iter().filter_map(|(_, sample)| sample.labels.get(task.name())).collect();
    if task.kind() != TaskKind::Depth || labels.is_empty() {
        return Ok(colours);
    }
    Ok(colours.depths(DepthRange::of(&Tensor::cat(&labels, 0)?)?))
}

/// What the tasks' colours mean, and, once each, those of their errors.
fn legends(tasks: &TaskSet, colours: &[MapColours], drawn: &[Vec<Tensor>]) -> tadformer::Result<Vec<Legend>> {
    let of_task = |((task, colours), drawn): ((&Task, &MapColours), &Vec<Tensor>)| colours.legend(task.name(), drawn);
    let mut legends = tasks.iter().zip(colours).zip(drawn).map(of_task).collect::<tadformer::Result<Vec<_>>>()?;
    for error in tasks.iter().map(|task| error_legend(task.kind())) {
        if !legends.contains(&error) {
            legends.push(error);
        }
    }
    Ok(legends)
}
