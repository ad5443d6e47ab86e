//! What is drawn: attention over the photo, filters in signed colours, distances.

use candle_core::{DType, Tensor};
use tadformer::image::imageops::FilterType;
use tadformer::image::{DynamicImage, Rgb, RgbImage, imageops};
use tadformer::ops;
use tadformer::picture::{Legend, Panel, PanelRow, Ramp, overlay, ramp_picture};
use tadformer::tad::{FilterView, StageView};
use tadformer::{Result, TaskSet};

/// Width of a photo under a map.
const PHOTO: u32 = 256;
/// Twice the side of a square of kernels.
const SQUARE: usize = 432;

/// A row for each task: where its prompts look, mean over the heads, stage by stage; `None` without prompts.
pub fn attention(stages: &[StageView], tasks: &TaskSet, photo: &DynamicImage) -> Result<Option<Panel>> {
    let Some(maps) = stages.iter().map(|stage| stage.attention.as_ref()).collect::<Option<Vec<&Tensor>>>() else {
        return Ok(None);
    };
    let height = (PHOTO * photo.height() / photo.width()).clamp(16, 4 * PHOTO);
    let photo = photo.resize_exact(PHOTO, height, FilterType::Triangle).to_rgb8();
    let grey = DynamicImage::ImageRgb8(photo.clone()).to_luma8();
    let grey = DynamicImage::ImageLuma8(grey).to_rgb8();
    let titles = (1..=maps.len()).map(|i| format!("stage {i}"));
    let legend = Legend::bar("attention, in the range under each map", Ramp::Inferno, (0.0, 100.0), "%");
    let mut panel = Panel::new(std::iter::once("photo".to_owned()).chain(titles)).legend(legend);
    for (t, task) in tasks.iter().enumerate() {
        let mut row = vec![photo.clone()];
        let mut captions = vec!["range:".to_owned()];
        for map in &maps {
            let map = map.get(t)?.narrow(0, 0, 1)?.to_dtype(DType::F32)?.mean_keepdim(1)?; // [1, 1, h, w]
            let fine = ops::bilinear(&map, (height as usize, PHOTO as usize))?.squeeze(0)?.squeeze(0)?;
            let (low, high) = (map.min_all()?.to_scalar()?, map.max_all()?.to_scalar()?);
            row.push(overlay(&grey, &ramp_picture(&fine, Ramp::Inferno, (low, high))?, 0.7)?);
            captions.push(format!("{low:.2} to {high:.2}"));
        }
        panel.push(PanelRow::new(row).named(task.name()).captions(captions));
    }
    Ok(Some(panel))
}

/// What of the filters is drawn.
#[derive(Clone, Copy, PartialEq)]
pub enum Taps {
    /// All of them.
    Whole,
    /// What a task's differ by from the mean of all tasks'.
    LessMean,
}

/// A row for each task: the kernels of every channel, for each linear of each stage; `None` without filters.
pub fn filters(stages: &[StageView], tasks: &TaskSet, what: Taps) -> Result<Option<Panel>> {
    let filters: Vec<(usize, &FilterView)> = stages
        .iter()
        .enumerate()
        .flat_map(|(i, stage)| stage.filters.iter().map(move |filter| (i + 1, filter)))
        .collect();
    if filters.is_empty() {
        return Ok(None);
    }
    let titles = filters.iter().map(|(stage, filter)| format!("stage {stage} {}", filter.linear.name()));
    let columns = stages.iter().map(|stage| stage.filters.len()).max().unwrap_or(1);
    let legend = Legend::bar("weight, of the number under each", Ramp::Signed, (-100.0, 100.0), "%");
    let mut panel = Panel::new(titles).wrapped(0, 2 * columns).legend(legend);
    let taps = filters.iter().map(|(_, filter)| mean_taps(filter, what)).collect::<Result<Vec<_>>>()?;
    let most =
        taps.iter().map(|taps| taps.abs()?.max_all()?.to_scalar::<f32>()).collect::<candle_core::Result<Vec<_>>>()?;
    for (t, task) in tasks.iter().enumerate() {
        let row =
            taps.iter().zip(&most).map(|(taps, most)| kernels(&taps.get(t)?, *most)).collect::<Result<Vec<_>>>()?;
        let captions =
            most.iter().map(|most| if *most < 1e-3 { format!("±{most:.0e}") } else { format!("±{most:.3}") });
        panel.push(PanelRow::new(row).named(task.name()).captions(captions));
    }
    Ok(Some(panel))
}

/// The mean over windows of the first image's taps, `[T, k*k, r]`.
fn mean_taps(filter: &FilterView, what: Taps) -> Result<Tensor> {
    let taps = filter.taps.narrow(1, 0, 1)?.squeeze(1)?.to_dtype(DType::F32)?.mean(1)?;
    Ok(match what {
        Taps::Whole => taps,
        Taps::LessMean => taps.broadcast_sub(&taps.mean_keepdim(0)?)?,
    })
}

/// The kernels of all channels, `[k*k, r]`, in a square of small squares.
fn kernels(taps: &Tensor, most: f32) -> Result<RgbImage> {
    let (kk, r) = taps.dims2()?;
    let (k, beside) = (kk.isqrt(), (r as f64).sqrt().ceil() as usize);
    let scale = (SQUARE / (beside * (2 * k + 1))).max(1) as u32;
    let step = k as u32 * scale + scale.div_ceil(2);
    let size = |count: usize| count as u32 * step - scale.div_ceil(2);
    let mut picture = RgbImage::from_pixel(size(beside), size(r.div_ceil(beside)), Rgb([128; 3]));
    for channel in 0..r {
        let kernel = taps.narrow(1, channel, 1)?.reshape((k, k))?;
        let drawn = ramp_picture(&kernel, Ramp::Signed, (-most, most))?;
        let drawn = imageops::resize(&drawn, k as u32 * scale, k as u32 * scale, FilterType::Nearest);
        let place = |i: usize| i64::from(i as u32 * step);
        imageops::replace(&mut picture, &drawn, place(channel % beside), place(channel / beside));
    }
    Ok(picture)
}

/// A square of colour and a number for each pair of tasks; `None` without filters.
pub fn distances(distances: Option<&[Vec<f64>]>, tasks: &TaskSet) -> Option<Panel> {
    let distances = distances?;
    let most = distances.iter().flatten().fold(1e-6f64, |most, distance| most.max(*distance)) as f32;
    let names = || tasks.iter().map(|task| task.name().to_owned());
    let legend = Legend::bar("1000 x distance", Ramp::Viridis, (0.0, 1000.0 * most), "");
    let mut panel = Panel::new(names()).legend(legend);
    for (name, row) in names().zip(distances) {
        let cell = |distance: &f64| RgbImage::from_pixel(192, 64, Rgb(Ramp::Viridis.colour(*distance as f32 / most)));
        let captions = row.iter().map(|distance| format!("{:.2}", 1000.0 * distance));
        panel.push(PanelRow::new(row.iter().map(cell).collect()).named(name).captions(captions));
    }
    Some(panel)
}
