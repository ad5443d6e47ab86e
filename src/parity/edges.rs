//! Edges beside the benchmark: thinned and suppressed maps, largest matchings, odsF and oisF.

use super::golden::Golden;
use super::row::Row;
use crate::Result;
use crate::bitmap::Bitmap;
use crate::metrics::{BoundaryCounts, BoundaryMeter, BoundaryRecipe, BoundaryRule, BoundaryTruth};
use crate::metrics::{PrecisionRecall, Raster};
use candle_core::{DType, Device};
use serde_json::Value;

/// Metadata that only a file of edge scores has.
pub(super) const MARK: &str = "thresholds.suppressed";

/// odsF may differ from the benchmark's by this much: its matchings are random, and smaller than the largest.
const BENCHMARK_LIMIT: f64 = 0.003;
/// Suppressed maps may differ in this many pixels: single precision.
const SUPPRESSED_LIMIT: f64 = 1.0;
/// Where the same integers lead to both figures.
const ROUNDING: f64 = 1e-12;

pub(super) fn compare(golden: &Golden) -> Result<Vec<Row>> {
    let (images, suppressed): (Vec<String>, Vec<String>) = (golden.json("images")?, golden.json("suppressed")?);
    let images = images.iter().map(|name| Image::read(golden, name)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for image in &images {
        rows.extend(image.maps(golden, suppressed.contains(&image.name))?);
    }
    for recipe in BoundaryRecipe::ALL.iter().copied() {
        let takes_part = |image: &&Image| recipe == BoundaryRecipe::Plain || suppressed.contains(&image.name);
        let images: Vec<&Image> = images.iter().filter(takes_part).collect();
        rows.extend(figures(golden, recipe, &images)?);
    }
    Ok(rows)
}

/// A predicted map and its truth.
struct Image {
    name: String,
    size: [usize; 2],
    prediction: Vec<u8>,
    truth: BoundaryTruth,
}

impl Image {
    fn read(golden: &Golden, name: &str) -> Result<Self> {
        let (size, prediction) = map(golden, &format!("{name}.prediction"))?;
        let (labels_size, labels) = map(golden, &format!("{name}.labels"))?;
        let truth = BoundaryTruth::new(BoundaryRule::Segments, Raster::new(&labels, labels_size)?, None);
        Ok(Self { name: name.to_owned(), size, prediction, truth })
    }

    /// Thinned and suppressed maps, pixel by pixel.
    fn maps(&self, golden: &Golden, suppressed: bool) -> Result<Vec<Row>> {
        let prediction = Raster::new(&self.prediction, self.size)?;
        let truth: Vec<u8> = self.truth.to_vec().into_iter().map(u8::from).collect();
        let mut thinned = vec![0u8; self.prediction.len()];
        for (bit, threshold) in golden.json::<Vec<f64>>("thinned")?.into_iter().enumerate() {
            let above = BoundaryRecipe::Plain.thresholds().iter().filter(|t| **t < threshold).count();
            let levels = BoundaryRecipe::Plain.levels(prediction);
            let mut map = Bitmap::of(&levels, self.size[0], self.size[1], |level| usize::from(level) > above);
            map.thin();
            thinned.iter_mut().zip(map.to_vec()).for_each(|(bits, set)| *bits |= u8::from(set) << bit);
        }
        let mut rows = vec![self.row(golden, "truth", &truth, 0.0)?, self.row(golden, "plain.thinned", &thinned, 0.0)?];
        if suppressed {
            let levels = BoundaryRecipe::Suppressed.levels(prediction);
            rows.push(self.row(golden, "suppressed.level", &levels, SUPPRESSED_LIMIT)?);
        }
        Ok(rows)
    }

    fn row(&self, golden: &Golden, what: &str, got: &[u8], limit: f64) -> Result<Row> {
        let name = format!("{}.{what}", self.name);
        let (size, want) = map(golden, &name)?;
        let error = if size == self.size { differing(got, &want) } else { f64::INFINITY };
        Ok(Row { name, error, torch: None, limit })
    }
}

/// Counts of each image and figures of all, at each distance.
fn figures(golden: &Golden, recipe: BoundaryRecipe, images: &[&Image]) -> Result<Vec<Row>> {
    let results: Value = golden.json("result")?;
    let mut rows = Vec::new();
    for (d, distance) in golden.json::<Vec<f64>>("distances")?.into_iter().enumerate() {
        let mut meter = BoundaryMeter::new(recipe, distance)?;
        for image in images {
            let counts = meter.count(Raster::new(&image.prediction, image.size)?, &image.truth)?;
            rows.push(counted(golden, &format!("{}.{}", image.name, recipe.name()), &counts, d, distance)?);
            meter.add(&counts)?;
        }
        let name = format!("{}.{distance}", recipe.name());
        let curve: Vec<f64> = meter.curve().iter().flat_map(|score| [score.f, score.precision, score.recall]).collect();
        let total = format!("total.{name}");
        let error = differing(&curve, &values(golden, &total, DType::F64)?);
        rows.push(Row { name: total, error, torch: None, limit: 0.0 });
        rows.extend(best(&name, &meter, &results[&name]));
    }
    Ok(rows)
}

/// At how many thresholds the pixels matched, true and predicted are not those of the file.
fn counted(golden: &Golden, name: &str, counts: &BoundaryCounts, d: usize, distance: f64) -> Result<Row> {
    let n = counts.matched.len();
    let integers = |what: &str| values(golden, &format!("{name}.{what}"), DType::I32);
    let (largest, theirs) = (integers("largest")?, integers("counts")?);
    let got = (0..n).flat_map(|k| [counts.matched[k], counts.truth, counts.predicted[k]].map(|v| v as f64));
    let want = (d * n..(d + 1) * n).flat_map(|k| {
        let at = |values: &[f64], i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        [at(&largest, k), at(&theirs, 4 * k + 1), at(&theirs, 4 * k + 3)]
    });
    let error = differing(&got.collect::<Vec<_>>(), &want.collect::<Vec<_>>());
    Ok(Row { name: format!("{name}.{distance}.counts"), error, torch: None, limit: 0.0 })
}

/// odsF and oisF beside those of the largest matchings, and odsF beside the benchmark's.
fn best(name: &str, meter: &BoundaryMeter, result: &Value) -> Vec<Row> {
    let f = |score: Option<PrecisionRecall>| score.map_or(f64::NAN, |score| score.f);
    let row = |theirs: &str, figure: &str, got: f64, limit: f64| {
        let error = (got - result[theirs][figure].as_f64().unwrap_or(f64::NAN)).abs();
        Row { name: format!("{name}.{theirs}.{figure}"), error, torch: None, limit }
    };
    vec![
        row("largest", "odsF", f(meter.ods()), ROUNDING),
        row("largest", "oisF", f(meter.ois()), ROUNDING),
        row("benchmark", "odsF", f(meter.ods()), BENCHMARK_LIMIT),
    ]
}

/// A map of bytes with its size.
fn map(golden: &Golden, name: &str) -> Result<([usize; 2], Vec<u8>)> {
    let tensor = golden.tensors.load(name, DType::U8, &Device::Cpu)?;
    let (height, width) = tensor.dims2()?;
    Ok(([height, width], tensor.flatten_all()?.to_vec1()?))
}

/// The values of a tensor that is stored in this type.
fn values(golden: &Golden, name: &str, stored: DType) -> Result<Vec<f64>> {
    Ok(golden.tensors.load(name, stored, &Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// How many values differ; infinite where there are more on one side.
fn differing<T: PartialEq>(got: &[T], want: &[T]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    got.iter().zip(want).filter(|(got, want)| got != want).count() as f64
}
