//! A file of tensors, whatever its format, and the names it is read under.

use super::format::{TensorFile, elements};
use super::opened::Opened;
use super::pth::PthFile;
use super::safetensors::SafetensorsFile;
use super::values::values;
use crate::finite::is_finite;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tensors of a file, found but not yet read.
///
/// The file stays open, and a tensor is read from its place when it is loaded; files of `torch.save` are read without executing
/// anything.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: Tensors,
    names: BTreeMap<String, Made>,
}

/// A clone shares the file.
#[derive(Clone)]
enum Tensors {
    File(Arc<dyn TensorFile>),
    Memory(Arc<HashMap<String, Tensor>>),
}

impl Tensors {
    fn names(&self) -> Vec<&str> {
        match self {
            Self::File(file) => file.names(),
            Self::Memory(tensors) => tensors.keys().map(String::as_str).collect(),
        }
    }

    fn tensor(&self, name: &str) -> Option<(Dtype, &[usize])> {
        match self {
            Self::File(file) => file.tensor(name),
            Self::Memory(tensors) => tensors.get(name).map(|tensor| (tensor.dtype().into(), tensor.dims())),
        }
    }
}

/// How a tensor is made of those in the file: one, or several one after the other, in this shape; of none, zeros.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Made {
    /// Names in the file.
    pub(crate) parts: Vec<String>,
    /// The shape it is given.
    pub(crate) shape: Vec<usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({:?}, {} tensors)", self.path, self.names.len())
    }
}

impl Checkpoint {
    /// Opens a file, its format recognised by its content, or a folder: `model.safetensors`, else `pytorch_model.bin`, else the only
    /// `.safetensors`, `.pth`, `.pt` or `.bin` in it.
    ///
    /// # Errors
    /// A path that does not exist, a folder without a checkpoint or with several, what is no regular file, a file that is damaged or of
    /// another format.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() { Self::open_file(&in_folder(path)?) } else { Self::open_file(path) }
    }

    /// [`Checkpoint::open`] for a file alone.
    pub(crate) fn open_file(path: &Path) -> Result<Self> {
        let file = Opened::open(path)?;
        let tensors = match format(&file)? {
            Format::Zip => Tensors::File(Arc::new(PthFile::open(file)?)),
            Format::LegacyPickle => {
                let cure = "load it once with PyTorch and save it again: torch.save(torch.load(PATH), PATH)";
                return Err(Error::file(path, "a pickle from before PyTorch 1.6", cure));
            }
            Format::Safetensors => Tensors::File(Arc::new(SafetensorsFile::open(file)?)),
        };
        let checkpoint = Self::of(path.to_owned(), tensors);
        match checkpoint.names.iter().find(|(_, made)| elements(&made.shape).is_none()) {
            Some((name, _)) => Err(Error::file(path, format!("the shape of `{name}` overflows"), "take another copy")),
            None => Ok(checkpoint),
        }
    }

    /// Whether a path ends as checkpoints do.
    pub(crate) fn is_named_like_one(path: &Path) -> bool {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["safetensors", "pth", "pt", "bin"].contains(&ending)
    }

    /// A checkpoint of tensors in memory.
    pub fn from_tensors(tensors: HashMap<String, Tensor>) -> Self {
        Self::of(PathBuf::from("memory"), Tensors::Memory(Arc::new(tensors)))
    }

    fn of(path: PathBuf, tensors: Tensors) -> Self {
        let made = |name: &str| {
            let shape = tensors.tensor(name).map(|(_, shape)| shape.to_vec()).unwrap_or_default();
            (name.to_owned(), Made { parts: vec![name.to_owned()], shape })
        };
        let names = tensors.names().into_iter().map(made).collect();
        Self { path, tensors, names }
    }

    /// The same tensors under other names, each made of tensors that this checkpoint names.
    pub(crate) fn renamed(self, names: BTreeMap<String, Made>) -> Self {
        let in_file = |part: &String| self.names.get(part).map_or(vec![], |made| made.parts.clone());
        let trace = |made: Made| Made { parts: made.parts.iter().flat_map(in_file).collect(), ..made };
        let names = names.into_iter().map(|(name, made)| (name, trace(made))).collect();
        Self { names, ..self }
    }

    /// Only the tensors whose names start with `prefix`, under the rest of their names.
    pub fn under(&self, prefix: &str) -> Self {
        let rest = |(name, made): (&String, &Made)| Some((name.strip_prefix(prefix)?.to_owned(), made.clone()));
        Self {
            path: self.path.clone(),
            tensors: self.tensors.clone(),
            names: self.names.iter().filter_map(rest).collect(),
        }
    }

    /// The name in the file of a tensor, the first of those it is made of; `None` where it is made of none.
    pub(crate) fn source(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.parts.first().map(String::as_str)
    }

    /// The file, or `memory`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text that a safetensors file carries beside its tensors under this key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        if let Tensors::File(file) = &self.tensors { file.metadata(key) } else { None }
    }

    /// The configuration that a training's checkpoint of PyTorch holds beside its weights, as JSON.
    pub(crate) fn training_config(&self) -> Option<&serde_json::Value> {
        if let Tensors::File(file) = &self.tensors { file.config() } else { None }
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The shape of the tensor of this name.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.names.get(name).map(|made| made.shape.clone())
    }

    /// Reads a tensor. Floats of any width become floats of any other; what is no float becomes none.
    ///
    /// # Errors
    /// A name that the file does not hold; a type that is not read, or no float where one is asked for; values that are NaN or
    /// infinite, or beyond the type that is asked for; a file that can no longer be read.
    pub fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let made = self.names.get(name).ok_or_else(|| self.missing(name))?;
        if made.parts.is_empty() {
            return Ok(Tensor::zeros(made.shape.clone(), dtype, device)?);
        }
        let whole = self.parts(&made.parts, dtype)?.reshape(made.shape.clone())?;
        let value = whole.to_dtype(dtype)?;
        if !is_finite(&value)? {
            let held =
                if is_finite(&whole)? { format!("numbers beyond {dtype:?}") } else { "NaN or infinity".to_owned() };
            let cure = "take another copy, or an earlier state of that training";
            return Err(Error::file(&self.path, format!("`{name}` holds {held}"), cure));
        }
        Ok(value.to_device(device)?)
    }

    /// Tensors of the file one after the other, `[values]`, in the type that they are stored in.
    fn parts(&self, names: &[String], asked: DType) -> Result<Tensor> {
        let (dtype, counts) = self.one_type(names, asked)?;
        match &self.tensors {
            Tensors::File(file) => values(&self.path, dtype, counts.iter().sum(), |mut bytes| {
                for (name, count) in names.iter().zip(&counts) {
                    let (part, rest) = bytes.split_at_mut(count * dtype.bitsize() / 8);
                    file.read(name, part)?;
                    bytes = rest;
                }
                Ok(())
            }),
            Tensors::Memory(tensors) => {
                let parts = names.iter().filter_map(|name| tensors.get(name)).map(Tensor::flatten_all);
                Ok(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
            }
        }
    }

    /// The type of all these tensors and how many values each holds; whole numbers, and the codes of quantised weights, are no
    /// floats.
    fn one_type(&self, names: &[String], asked: DType) -> Result<(Dtype, Vec<usize>)> {
        let (mut first, mut counts) = (None, Vec::new());
        for name in names {
            let (dtype, shape) = self.tensors.tensor(name).ok_or_else(|| self.missing(name))?;
            let expected = match first {
                Some(first) => vec![first],
                None if asked.is_float() => FLOATS.to_vec(),
                None => vec![dtype],
            };
            if !expected.contains(&dtype) {
                let problem = format!("`{name}` holds {dtype:?}, expected {}", either(&expected));
                return Err(Error::file(&self.path, problem, "save it again in such a type"));
            }
            first = Some(dtype);
            counts.push(elements(shape).unwrap_or_default());
        }
        Ok((first.unwrap_or(Dtype::F32), counts))
    }

    fn missing(&self, name: &str) -> Error {
        Error::file(&self.path, format!("no tensor `{name}`"), "the file is damaged or of another model")
    }
}

/// What a weight may be stored in.
const FLOATS: [Dtype; 4] = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64];

fn either(types: &[Dtype]) -> String {
    types.iter().map(|dtype| format!("{dtype:?}")).collect::<Vec<_>>().join(" or ")
}

enum Format {
    Zip,
    LegacyPickle,
    Safetensors,
}

fn format(file: &Opened) -> Result<Format> {
    let mut start = vec![0; file.length().min(9) as usize];
    file.read(0, &mut start)?;
    Ok(match start.as_slice() {
        [b'P', b'K', 3, 4, ..] => Format::Zip,
        // The length of a safetensors header may start like a pickle; its brace comes ninth.
        [_, _, _, _, _, _, 0, 0, b'{'] => Format::Safetensors,
        [0x80, 0..=5, ..] => Format::LegacyPickle,
        _ => Format::Safetensors,
    })
}

/// The one checkpoint of a folder.
fn in_folder(folder: &Path) -> Result<PathBuf> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if folder.join(name).exists() {
            return Ok(folder.join(name));
        }
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let paths = paths.map_err(Error::io(folder, "read"))?;
    let mut found: Vec<PathBuf> = paths.into_iter().filter(|path| Checkpoint::is_named_like_one(path)).collect();
    found.sort();
    let cure = "name the file";
    match found.len() {
        0 => Err(Error::file(
            folder,
            "a folder without model.safetensors, pytorch_model.bin or another checkpoint",
            cure,
        )),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<String> =
                found.iter().filter_map(|p| Some(p.file_name()?.to_string_lossy().into())).collect();
            Err(Error::file(folder, format!("a folder with several checkpoints: {}", names.join(", ")), cure))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> PathBuf {
        let path = tempfile::tempdir().unwrap().keep().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn with_header(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    #[test]
    fn hostile_safetensors_are_refused() {
        let mut huge = (8u64 << 30).to_le_bytes().to_vec();
        huge.extend(b"{}");
        let tensor = |shape: &str, from: usize, to: usize| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let overlapping = format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", 0, 8), tensor("[2]", 4, 12));
        let overflow = format!(r#"{{"a":{}}}"#, tensor("[4611686018427387904,4611686018427387904]", 0, 8));
        let short = format!(r#"{{"a":{}}}"#, tensor("[2]", 0, 8));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for bytes in [
            vec![],
            vec![1, 2, 3],
            huge,
            with_header(&overlapping, 12),
            with_header(&overflow, 8),
            with_header(&short, 4),
            with_header(&deep, 0),
            b"\x89PNG\r\n\x1a\n and so on".to_vec(),
        ] {
            let path = file(&bytes);
            let message = Checkpoint::open(&path).unwrap_err().to_string();
            assert!(message.contains("model.safetensors") && message.contains("undamaged"), "{message}");
            assert_eq!(message.matches("model.safetensors").count(), 1, "{message}");
        }
    }

    #[test]
    fn a_legacy_pickle_is_told_how_to_be_saved_again() {
        let message = Checkpoint::open(file(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")).unwrap_err().to_string();
        assert!(message.contains("before PyTorch 1.6") && message.contains("torch.save"), "{message}");
    }

    #[test]
    fn a_folder_gives_its_one_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let message = || Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(message().contains("without model.safetensors"));
        let bytes = with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4);
        std::fs::write(folder.path().join("x.safetensors"), &bytes).unwrap();
        assert_eq!(Checkpoint::open(folder.path()).unwrap().shape("a"), Some(vec![1]));
        std::fs::write(folder.path().join("y.safetensors"), &bytes).unwrap();
        assert!(message().contains("x.safetensors, y.safetensors"));
        std::fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        assert!(Checkpoint::open(folder.path()).is_ok());
        assert!(Checkpoint::open(folder.path().join("missing")).unwrap_err().to_string().contains("cannot read"));
    }

    #[test]
    fn a_header_whose_length_looks_like_a_pickle_is_no_pickle() {
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        for length in [0x1_0280, 0x2_0480] {
            let padded = format!("{header}{}", " ".repeat(length - header.len()));
            assert_eq!(Checkpoint::open(file(&with_header(&padded, 4))).unwrap().shape("a"), Some(vec![1]));
        }
    }

    #[test]
    fn an_empty_tensor_with_an_overflowing_shape_is_refused() {
        let header = r#"{"a":{"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]}}"#;
        let result =
            Checkpoint::open(file(&with_header(header, 0))).and_then(|file| file.load("a", DType::F32, &Device::Cpu));
        let message = result.unwrap_err().to_string();
        assert!(message.contains("`a`") && message.contains("overflows"), "{message}");
    }

    #[test]
    fn a_checkpoint_can_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Checkpoint>();
    }
}
