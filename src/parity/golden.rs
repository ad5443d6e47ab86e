//! A golden file and what is compared with it.

use super::row::{OUTPUT_LIMIT, Row};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// What marks the folder of one Swin in three formats.
pub(crate) const EXPECTED: &str = "expected.safetensors";

/// The golden files and Swin folders in a folder of several; a path that is one itself is given as it is.
///
/// # Errors
/// A folder that cannot be read or holds none.
pub fn golden_in(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() || path.join(EXPECTED).is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(Error::io(path, "read"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let golden = |path: &PathBuf| path.join(EXPECTED).is_file() || path.extension().is_some_and(|e| e == "safetensors");
    let mut found: Vec<PathBuf> = paths.map_err(Error::io(path, "read"))?.into_iter().filter(golden).collect();
    found.sort();
    if found.is_empty() {
        let cure = "give files of make_golden.py, or a folder of them";
        return Err(Error::file(path, format!("a folder without golden files or {EXPECTED}"), cure));
    }
    Ok(found)
}

/// A golden file with its metadata.
pub(crate) struct Golden {
    pub(super) tensors: Checkpoint,
}

impl Golden {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { tensors: Checkpoint::open(path)? })
    }

    pub(super) fn foreign(&self, problem: &str) -> Error {
        let cure = "give a file of make_golden.py, or a folder with expected.safetensors";
        Error::file(self.tensors.path(), problem, cure)
    }

    pub(super) fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self.tensors.metadata(key).ok_or_else(|| self.foreign(&format!("no metadata `{key}`")))?;
        serde_json::from_str(text).map_err(|e| self.foreign(&format!("metadata `{key}`: {e}")))
    }

    pub(super) fn get(&self, name: &str) -> Result<Tensor> {
        self.tensors.load(name, DType::F32, &Device::Cpu)
    }

    /// Names that start with `prefix`, without it.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.tensors.names().filter_map(move |name| name.strip_prefix(prefix))
    }
}

/// Root mean square of all values, in f64.
pub(crate) fn rms(tensor: &Tensor) -> candle_core::Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt())
}

/// `rms(got - want) / max(rms(want), floor)`; infinite for another shape.
pub(crate) fn relative_error(got: &Tensor, want: &Tensor, floor: f64) -> candle_core::Result<f64> {
    if got.dims() != want.dims() {
        return Ok(f64::INFINITY);
    }
    let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F64)?; // not every device has f64
    let difference = (got - want.to_dtype(DType::F64)?)?;
    Ok(rms(&difference)? / rms(want)?.max(floor).max(1e-30))
}

/// A row of an output or a feature.
pub(crate) fn output_row(name: String, got: &Tensor, want: &Tensor, torch: Option<f64>) -> Result<Row> {
    Ok(Row { name, error: relative_error(got, want, 0.0)?, torch, limit: OUTPUT_LIMIT })
}
