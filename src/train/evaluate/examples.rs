//! The best and the worst images of a task, drawn, and all that a report shows of a model.

use super::images::{ImageEvaluation, ImageOptions, outputs_of, prepared, size_of};
use crate::decode::decode;
use crate::metrics::Scores;
use crate::model::InferenceModel;
use crate::picture::{DepthRange, MapColours, Panel, encode_png, error_legend, error_picture, photo_picture};
use crate::report::{EvaluatedModel, EvaluatedTask, Example, Rank};
use crate::sample::Dataset;
use crate::{Error, Result, Task, TaskKind};
use candle_core::Tensor;
use image::RgbImage;
use std::path::Path;

impl ImageEvaluation {
    /// What a report shows of the model, with the best and the worst `examples` images of each task, which the model sees again.
    ///
    /// # Errors
    /// As [`evaluate_images`](super::evaluate_images).
    pub fn evaluated(
        &self,
        name: &str,
        model: &InferenceModel,
        dataset: &dyn Dataset,
        options: &ImageOptions,
        examples: usize,
    ) -> Result<EvaluatedModel> {
        let mut tasks = Vec::new();
        for (i, measured) in self.tasks.iter().enumerate() {
            let classes = dataset.classes(measured.task.name()).cloned().unwrap_or_default();
            let mut shown = EvaluatedTask::of_meter(&measured.task, &measured.meter, &classes);
            if let Some(boundary) = &measured.boundary {
                let Scores { primary, others, .. } = boundary.scores();
                shown.scores.splice(0..0, std::iter::once(primary).chain(others));
                shown.curve = Some(boundary.curve());
            }
            for (rank, index) in self.extremes(i, examples) {
                shown.examples.push(self.example((i, &measured.task), (rank, index), model, dataset, options)?);
            }
            tasks.push(shown);
        }
        let mut shown = EvaluatedModel::new(name, tasks);
        shown.seconds_per_image = self.seconds_per_image();
        Ok(shown)
    }

    /// The places of the best and of the worst images of a task, the best first and the worst first; none is both.
    fn extremes(&self, task: usize, count: usize) -> Vec<(Rank, usize)> {
        let higher = self.tasks[task].meter.scores().primary.higher_is_better;
        let mut ranked: Vec<(f64, usize)> =
            self.images.iter().enumerate().filter_map(|(at, image)| Some((image.scores[task]?, at))).collect();
        ranked.sort_by(|a, b| if higher { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        let best = ranked.iter().take(count).map(|(_, at)| (Rank::Best, *at));
        let worst = ranked.iter().skip(count).rev().take(count).map(|(_, at)| (Rank::Worst, *at));
        best.chain(worst).collect()
    }

    fn example(
        &self,
        (i, task): (usize, &Task),
        (rank, at): (Rank, usize),
        model: &InferenceModel,
        dataset: &dyn Dataset,
        options: &ImageOptions,
    ) -> Result<Example> {
        let image = &self.images[at];
        let drawn = draw(task, image.index, model, dataset, options);
        let png = drawn.and_then(|panel| png(&panel)).map_err(|error| Error::dataset(image.index, error))?;
        let primary = self.tasks[i].meter.scores().primary.name;
        let caption = format!("{}: {primary} {:.3}", image.name, image.scores[i].unwrap_or_default());
        Ok(Example { caption, rank, png })
    }
}

/// Image, label, prediction and error of one task, at the size at which they were compared.
fn draw(
    task: &Task,
    index: usize,
    model: &InferenceModel,
    dataset: &dyn Dataset,
    options: &ImageOptions,
) -> Result<RgbImage> {
    let (input, compared) = prepared(dataset.get(index)?.checked()?, dataset, options)?;
    let outputs = outputs_of(model, &input)?;
    let unknown =
        |what: &str| Error::config("task", format!("{what} of it"), task.name(), "evaluate it with its labels");
    let output = outputs.get(task.name()).ok_or_else(|| unknown("outputs"))?;
    let label = compared.labels.get(task.name()).ok_or_else(|| unknown("a label"))?;
    let predicted = decode(task, &output.squeeze(0)?, size_of(&compared)?)?;
    let colours = colours(task, label, dataset)?;
    let mut panel = Panel::new(["image", "label", "prediction", "error"].map(str::to_owned));
    panel.push(vec![
        photo_picture(&compared.image)?,
        colours.picture(label)?,
        colours.picture(&predicted)?,
        error_picture(task.kind(), &predicted, label)?,
    ]);
    if task.kind().is_classes() || task.kind() == TaskKind::Depth {
        panel = panel.legend(colours.legend("", [label, &predicted])?);
    }
    panel = panel.legend(error_legend(task.kind()));
    Ok(panel.draw())
}

/// The data set's own colours of classes; depths from the label's nearest to its farthest.
fn colours(task: &Task, label: &Tensor, dataset: &dyn Dataset) -> Result<MapColours> {
    let colours = MapColours::of(task.kind());
    Ok(match (task.kind(), dataset.classes(task.name())) {
        (TaskKind::Depth, _) => colours.depths(DepthRange::of(label)?),
        (_, Some(classes)) => colours.classes(classes),
        _ => colours,
    })
}

fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let encoded = encode_png(&mut bytes, picture.dimensions(), |pixels| pixels.write_all(picture.as_raw()));
    encoded.map_err(Error::io(Path::new("a panel"), "encode"))?;
    Ok(bytes)
}
