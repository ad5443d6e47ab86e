//! Parity with PyTorch: the crate's results beside tensors that a peer computed.
//!
//! Three kinds of golden files: a TADFormer with its outputs and gradients, a folder with one Swin in three formats and its
//! features, and losses and metrics. Each row is a root-mean-square error relative to the tensor's own root mean square.

mod figures;
mod swin;
mod tadformer;

use crate::params::Checkpoint;
use crate::{Error, Printable, Result};
use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};

/// One tensor or figure compared.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was compared.
    pub name: String,
    /// Relative root-mean-square error.
    pub error: f64,
    /// PyTorch's own, in float32, where the file tells.
    pub torch: Option<f64>,
    /// What is allowed.
    pub limit: f64,
}

impl Row {
    /// Whether the error is within the limit; one that is no number is not.
    pub fn passes(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let torch = self.torch.map_or("-".to_owned(), |torch| format!("{torch:.1e}"));
        let verdict = if self.passes() { "ok" } else { "ABOVE" };
        let name = Printable(&self.name).to_string();
        write!(f, "{name:<72} {:>9.1e} {torch:>9} {:>9.1e} {verdict}", self.error, self.limit)
    }
}

/// What marks the folder of one Swin in three formats.
const EXPECTED: &str = "expected.safetensors";
/// Outputs and features may differ by this much.
const OUTPUT_LIMIT: f64 = 1e-4;
/// Gradients may differ by this much, or by three times PyTorch's own float32 error.
const GRADIENT_LIMIT: f64 = 1e-3;
/// Metrics and losses may differ by this much.
const FIGURE_LIMIT: f64 = 1e-5;

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

/// Compares the crate with a golden file or folder, computing in `dtype` on the CPU.
///
/// # Errors
/// A path that cannot be read or is no golden file.
pub fn compare(path: impl AsRef<Path>, dtype: DType) -> Result<Vec<Row>> {
    let path = path.as_ref();
    if path.is_dir() {
        return swin::compare(path, dtype);
    }
    let golden = Golden::open(path)?;
    match golden.tensors.metadata("kind") {
        Some("tadformer") => tadformer::compare(&golden, dtype),
        Some("metrics") => figures::compare(&golden),
        _ => Err(golden.foreign("metadata without a known `kind`")),
    }
}

/// A golden file with its metadata.
struct Golden {
    tensors: Checkpoint,
}

impl Golden {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { tensors: Checkpoint::open(path)? })
    }

    fn foreign(&self, problem: &str) -> Error {
        let cure = "give a file of make_golden.py, or a folder with expected.safetensors";
        Error::file(self.tensors.path(), problem, cure)
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self.tensors.metadata(key).ok_or_else(|| self.foreign(&format!("no metadata `{key}`")))?;
        serde_json::from_str(text).map_err(|e| self.foreign(&format!("metadata `{key}`: {e}")))
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        self.tensors.load(name, DType::F32, &Device::Cpu)
    }

    /// Names that start with `prefix`, without it.
    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.tensors.names().filter_map(move |name| name.strip_prefix(prefix))
    }
}

/// Root mean square of all values, in f64.
fn rms(tensor: &Tensor) -> candle_core::Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt())
}

/// `rms(got - want) / max(rms(want), floor)`; infinite for another shape.
fn relative_error(got: &Tensor, want: &Tensor, floor: f64) -> candle_core::Result<f64> {
    if got.dims() != want.dims() {
        return Ok(f64::INFINITY);
    }
    let difference = (got.to_dtype(DType::F64)? - want.to_dtype(DType::F64)?)?;
    Ok(rms(&difference)? / rms(want)?.max(floor).max(1e-30))
}

/// A row of an output or a feature.
fn output_row(name: String, got: &Tensor, want: &Tensor, torch: Option<f64>) -> Result<Row> {
    Ok(Row { name, error: relative_error(got, want, 0.0)?, torch, limit: OUTPUT_LIMIT })
}
