//! A data set at a glance: images beside their labels.

use crate::picture::{MapColours, Panel, PanelRow, photo_picture};
use crate::sample::Dataset;
use crate::{Result, Sample, Task, TaskKind};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

/// What stands where there is no picture.
const NOTHING: Rgb<u8> = Rgb([235; 3]);

/// Draws a row for each of these samples, its image and its label of each task, each picture at most `side` pixels wide and high.
///
/// What cannot be read, or that an image lacks, is light grey: `data::inspect` tells why. Below stand the classes that appear.
///
/// ```
/// use tadformer::report::contact_sheet;
/// # #[cfg(feature = "scenes")] {
/// let scenes = tadformer::scenes::Scenes::new(0, 3, (48, 64))?;
/// let sheet = contact_sheet(&scenes, 0..2, 96)?;
/// assert!(sheet.width() > 7 * 96);
/// # }
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// None in practice; candle's are passed on.
pub fn contact_sheet(dataset: &dyn Dataset, samples: impl IntoIterator<Item = usize>, side: u32) -> Result<RgbImage> {
    let tasks = dataset.tasks();
    let titles = ["image"].into_iter().chain(tasks.iter().map(Task::name));
    let mut panel = Panel::new(titles.map(str::to_owned));
    let mut examined = Vec::new();
    for index in samples {
        let sample = dataset.examine(index).sample;
        panel.push(row(dataset, sample.as_ref(), side)?.named(dataset.name(index)));
        examined.extend(sample);
    }
    for task in tasks {
        let labels = examined.iter().filter_map(|sample| sample.labels.get(task.name()));
        if task.kind().is_classes() && labels.clone().next().is_some() {
            panel = panel.legend(colours(dataset, task).legend(task.name(), labels)?);
        }
    }
    Ok(panel.draw())
}

/// A sample's image and labels; none where it cannot be read.
fn row(dataset: &dyn Dataset, sample: Option<&Sample>, side: u32) -> Result<PanelRow> {
    let size = sample.map_or(Ok((side, side)), |sample| fitting(sample, side))?;
    let image = sample.map(|sample| photo_picture(&sample.image)).transpose()?;
    let mut row = vec![fitted(image, size, FilterType::Triangle)];
    for task in dataset.tasks() {
        let label = sample.and_then(|sample| sample.labels.get(task.name()));
        let label = label.map(|label| colours(dataset, task).picture(label)).transpose()?;
        // Lines of a pixel's width would be cut to dashes.
        let filter = if task.kind() == TaskKind::Edge { FilterType::Triangle } else { FilterType::Nearest };
        row.push(fitted(label, size, filter));
    }
    Ok(PanelRow::new(row))
}

fn colours(dataset: &dyn Dataset, task: &Task) -> MapColours {
    let colours = MapColours::of(task.kind());
    match dataset.classes(task.name()) {
        Some(classes) => colours.classes(classes),
        None => colours,
    }
}

/// The image's width and height, brought within a square.
fn fitting(sample: &Sample, side: u32) -> Result<(u32, u32)> {
    let (height, width) = sample.size()?;
    let scale = f64::from(side.max(1)) / height.max(width).max(1) as f64;
    let scaled = |length: usize| ((length as f64 * scale).round() as u32).max(1);
    Ok((scaled(width), scaled(height)))
}

fn fitted(picture: Option<RgbImage>, (width, height): (u32, u32), filter: FilterType) -> RgbImage {
    picture
        .map_or_else(|| RgbImage::from_pixel(width, height, NOTHING), |picture| resize(&picture, width, height, filter))
}
