//! Data sets in their published layouts, beside what the released code read of the same files.

use super::golden::{EXPECTED, Golden};
use super::row::Row;
use crate::data::{NyudV2, PascalContext, read_npy};
use crate::sample::{Dataset, IGNORE};
use crate::{Error, Result, TaskKind};
use candle_core::{DType, Device, Tensor, safetensors};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What the file says beside its tensors.
#[derive(Deserialize)]
struct Meta {
    /// The images of each split, in order.
    splits: BTreeMap<String, Vec<String>>,
    /// Tasks that an image has no label of.
    missing: BTreeMap<String, Vec<String>>,
}

/// A golden file, its bytes as bytes.
struct Expected<'a> {
    golden: &'a Golden,
    tensors: HashMap<String, Tensor>,
    meta: Meta,
}

impl Expected<'_> {
    fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.golden.foreign(&format!("no tensor `{name}`")))
    }
}

/// Normals as stored, and resized by the cubic, may differ by this much.
const NORMALS: [f64; 2] = [1e-6, 3e-6];

/// Whether a folder is a data set that this module compares.
pub(super) fn is_set(folder: &Path) -> bool {
    folder.join(EXPECTED).is_file() && (is_pascal(folder) || folder.join("gt_sets").is_dir())
}

fn is_pascal(folder: &Path) -> bool {
    folder.join("ImageSets/Context").is_dir()
}

pub(super) fn compare(folder: &Path) -> Result<Vec<Row>> {
    let path = folder.join(EXPECTED);
    let golden = Golden::open(&path)?;
    let expected =
        Expected { golden: &golden, tensors: safetensors::load(&path, &Device::Cpu)?, meta: golden.json("meta")? };
    let mut rows = Vec::new();
    for (split, ids) in &expected.meta.splits {
        let set: Box<dyn Dataset> = if is_pascal(folder) {
            Box::new(PascalContext::open(folder, split)?)
        } else {
            Box::new(NyudV2::open(folder, split)?)
        };
        let names: Vec<String> = (0..set.len()).map(|index| set.name(index)).collect();
        rows.push(same(format!("names of {split}"), names == *ids));
        for (index, id) in ids.iter().enumerate() {
            rows.extend(compare_sample(folder, &expected, &*set, (index, id))?);
        }
    }
    Ok(rows)
}

fn compare_sample(
    folder: &Path,
    expected: &Expected,
    set: &dyn Dataset,
    (index, id): (usize, &str),
) -> Result<Vec<Row>> {
    let sample = set.get(index)?;
    let want = expected.get(&format!("{id}.image"))?.permute((2, 0, 1))?;
    let mut rows = image_rows(folder, id, &sample.image, &want)?.to_vec();
    for task in set.tasks() {
        let name = format!("{id}.{}", task.name());
        let lacks = expected.meta.missing.get(id).is_some_and(|tasks| tasks.iter().any(|other| other == task.name()));
        let Some(got) = sample.labels.get(task.name()).filter(|_| !lacks) else {
            rows.push(same(format!("{name} is missing"), lacks && !sample.labels.contains_key(task.name())));
            continue;
        };
        let want = expected.get(&name)?;
        let (got, want, limit) = match task.kind() {
            TaskKind::Normals => (zero_where_unknown(got)?, want.permute((2, 0, 1))?, normals_limit(folder, id, got)?),
            TaskKind::Depth => (zero_where_unknown(got)?, want.unsqueeze(0)?, 0.0),
            _ => (got.clone(), want.unsqueeze(0)?, 0.0),
        };
        rows.push(Row { name, error: largest(&got, &want)?, torch: None, limit });
    }
    Ok(rows)
}

/// A row of something that is right or wrong.
fn same(name: String, is_same: bool) -> Row {
    Row { name, error: if is_same { 0.0 } else { f64::INFINITY }, torch: None, limit: 0.0 }
}

/// The released code's sign that nothing is known.
fn zero_where_unknown(label: &Tensor) -> Result<Tensor> {
    let known = label.ne(f64::from(IGNORE))?;
    Ok(known.where_cond(label, &label.zeros_like()?)?)
}

/// The largest difference of any value; infinite for another shape.
fn largest(got: &Tensor, want: &Tensor) -> Result<f64> {
    match differences(got, want)? {
        Some(differences) => Ok(differences.max_all()?.to_scalar()?),
        None => Ok(f64::INFINITY),
    }
}

fn differences(got: &Tensor, want: &Tensor) -> Result<Option<Tensor>> {
    if got.dims() != want.dims() {
        return Ok(None);
    }
    Ok(Some((got.to_dtype(DType::F64)? - want.to_dtype(DType::F64)?)?.abs()?))
}

/// Decoders of JPEG differ by a grey level here and there, and by more where colours were halved.
fn image_rows(folder: &Path, id: &str, got: &Tensor, want: &Tensor) -> Result<[Row; 2]> {
    let path = folder.join(if is_pascal(folder) { "JPEGImages" } else { "images" }).join(format!("{id}.jpg"));
    let limits = match luma_sampling(&std::fs::read(&path).map_err(Error::io(&path, "read"))?) {
        Some(0x22) => [8.0, 0.4],
        Some(0x21) => [3.0, 0.21],
        _ => [3.0, 0.07],
    };
    let mean = match differences(got, want)? {
        Some(differences) => differences.mean_all()?.to_scalar()?,
        None => f64::INFINITY,
    };
    let row = |what, error, limit| Row { name: format!("{id}.image, {what}"), error, torch: None, limit };
    Ok([row("largest", largest(got, want)?, limits[0]), row("mean", mean, limits[1])])
}

/// How much finer a JPEG's brightness is than its colours, across and down, as its frame says: 0x22 for twice in both.
fn luma_sampling(jpeg: &[u8]) -> Option<u8> {
    let mut at = 2;
    loop {
        let &[0xff, marker, high, low] = jpeg.get(at..)?.first_chunk()? else { return None };
        match marker {
            // A frame: its length, bits, height and width, number of components; then each one's number, sampling and table.
            0xc0..=0xc2 => return jpeg.get(at + 11).copied(),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

fn normals_limit(folder: &Path, id: &str, label: &Tensor) -> Result<f64> {
    let (_, height, width) = label.dims3()?;
    let stored = if is_pascal(folder) {
        let path = folder.join(format!("normals_distill/{id}.png"));
        image::image_dimensions(&path).ok().map(|(width, height)| (height as usize, width as usize))
    } else {
        read_npy(folder.join(format!("normals/{id}.npy"))).ok().map(|map| (map.height, map.width))
    };
    Ok(NORMALS[usize::from(stored != Some((height, width)))])
}
