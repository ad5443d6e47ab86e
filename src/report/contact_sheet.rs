//! A data set at a glance: images beside their labels.

use crate::picture::{Panel, photo_picture, picture};
use crate::sample::Dataset;
use crate::{Result, Sample, Task};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

/// What stands where there is no picture.
const NOTHING: Rgb<u8> = Rgb([235; 3]);

/// Draws a row for each of these samples, its image and its label of each task, each picture at most `side` pixels wide and high.
///
/// What cannot be read, or that an image lacks, is light grey: [`data::inspect`](crate::data::inspect) tells why.
///
/// ```
/// use tadformer::report::contact_sheet;
/// use tadformer::scenes::Scenes;
/// let sheet = contact_sheet(&Scenes::new(0, 3, (48, 64))?, 0..2, 96)?;
/// assert!(sheet.width() > 7 * 96);
/// # Ok::<(), tadformer::Error>(())
/// ```
///
/// # Errors
/// None in practice; candle's are passed on.
pub fn contact_sheet(dataset: &dyn Dataset, samples: impl IntoIterator<Item = usize>, side: u32) -> Result<RgbImage> {
    let tasks = dataset.tasks();
    let mut panel = Panel::new(["image"].into_iter().chain(tasks.iter().map(Task::name)).map(str::to_owned));
    for index in samples {
        let sample = dataset.examine(index).sample;
        let size = sample.as_ref().map_or(Ok((side, side)), |sample| fitting(sample, side))?;
        let image = sample.as_ref().map(|sample| photo_picture(&sample.float_image()?)).transpose()?;
        let mut row = vec![fitted(image, size, FilterType::Triangle)];
        for task in tasks {
            let label = sample.as_ref().and_then(|sample| sample.labels.get(task.name()));
            let label = label.map(|label| picture(task.kind(), label, None)).transpose()?;
            row.push(fitted(label, size, FilterType::Nearest));
        }
        panel.push(row);
    }
    Ok(panel.draw())
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
