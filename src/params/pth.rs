//! Files of `torch.save`: a zip of one pickle and the tensors' storages.

use super::checkpoint::{append_f32, elements};
use super::pickle::{Id, Pickle, Value};
use super::pickle_json::json;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use crc32fast::Hasher;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, ZipArchive};

/// The tensors of a `.pth`, found but not yet read.
#[derive(Debug)]
pub(super) struct PthFile {
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
    config: Option<serde_json::Value>,
}

/// A tensor in a file: a view of a storage, checked to lie within it.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    strides: Vec<usize>,
    /// The first value's place in the file.
    start: u64,
    /// Values from the first to the last, both counted.
    span: usize,
    /// Of the storage, where the tensor is all of it and the file carries one.
    checksum: Option<u32>,
}

/// A storage's place and length in the file.
#[derive(Clone, Copy)]
struct Storage {
    start: u64,
    bytes: u64,
    checksum: Option<u32>,
}

/// Longer than any weight's name: many entries may share one long text, and sorting them would compare all of it.
const MAX_NAME: usize = 1024;

/// More sides than any weight has: many tensors may share one long tuple, and each would copy it.
const MAX_SIDES: usize = 8;

/// Bytes that are read at once: they stay in the cache.
const PIECE: usize = 1 << 16;

const CURE: &str = "take another copy, or save it again with a current PyTorch";

impl PthFile {
    /// Reads the pickle and finds the tensors under `model`, `state_dict` or `module`, or at the top.
    ///
    /// # Errors
    /// A file that is no zip of `torch.save`, is damaged, compressed or of a big-endian machine; a tensor beyond its storage.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bad = |problem: String| Error::file(path, problem, CURE);
        let file = File::open(path).map_err(Error::io(path, "read"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut zip = ZipArchive::new(file).map_err(|e| bad(format!("damaged zip: {e}")))?;
        let pickle_name =
            zip.file_names().flatten().find(|name| name.ends_with("data.pkl")).map(|name| name.into_owned());
        let pickle_name = pickle_name.ok_or_else(|| bad("a zip without data.pkl".into()))?;
        let prefix = pickle_name.trim_end_matches("data.pkl").to_owned();
        if let Some(order) = zip.index_for_name(&format!("{prefix}byteorder")) {
            let order = read_entry(&mut zip, order, 16).map_err(bad)?;
            if order != b"little" {
                let order = String::from_utf8_lossy(&order).into_owned();
                return Err(bad(format!("values in `{order}` byte order, expected `little`")));
            }
        }
        let pickle = zip.index_for_name(&pickle_name).ok_or_else(|| bad("a zip without data.pkl".into()))?;
        let pickle = read_entry(&mut zip, pickle, Pickle::MAX_BYTES).map_err(bad)?;
        let pickle = Pickle::read(&pickle).map_err(bad)?;
        let storages = storages(&mut zip, &format!("{prefix}data/"), length).map_err(bad)?;
        let mut tensors = BTreeMap::new();
        for (name, value) in state_dict(&pickle) {
            if let Some(tensor) =
                stored_tensor(&pickle, value, &storages).map_err(|e| bad(format!("tensor `{name:.80}`: {e}")))?
            {
                tensors.insert(name.to_owned(), tensor);
            }
        }
        if tensors.is_empty() {
            let problem = "no tensors under `model`, `state_dict` or `module`, nor at the top";
            return Err(Error::file(path, problem, "save the model's state_dict() rather than the model itself"));
        }
        let config = named(&pickle, pickle.root()).get("config").and_then(|id| json(&pickle, *id));
        Ok(Self { path: path.to_owned(), tensors, config })
    }

    /// What a training's checkpoint holds under `config`, where it is a configuration.
    pub(super) fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref().filter(|config| config.is_object())
    }

    pub(super) fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// Reads one tensor, in row-major order whatever its strides.
    ///
    /// # Errors
    /// A file that can no longer be read; a storage of another checksum than the zip's. One of which the tensor is a part is not
    /// checked: many could be parts of one.
    pub(super) fn load(&self, tensor: &StoredTensor) -> Result<Tensor> {
        let width = tensor.dtype.size_in_bytes();
        let plain = tensor.dtype == DType::F32 && tensor.is_row_major();
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        if plain {
            values.reserve_exact(tensor.span);
            self.read(tensor, width, |chunk| append_f32(&mut values, chunk))?;
            return Ok(Tensor::from_vec(values, tensor.shape.as_slice(), &Device::Cpu)?);
        }
        bytes.reserve_exact(tensor.span * width);
        self.read(tensor, width, |chunk| bytes.extend_from_slice(chunk))?;
        if !tensor.is_row_major() {
            bytes = gather(&bytes, tensor, width);
        }
        Ok(Tensor::from_raw_buffer(&bytes, tensor.dtype, &tensor.shape, &Device::Cpu)?)
    }

    /// Hands a tensor's bytes on in pieces, and checks them.
    fn read(&self, tensor: &StoredTensor, width: usize, mut take: impl FnMut(&[u8])) -> Result<()> {
        let (mut rest, mut buffer, mut hash) = (tensor.span * width, Vec::new(), Hasher::new());
        buffer.resize(rest.min(PIECE), 0);
        let mut file = File::open(&self.path).map_err(Error::io(&self.path, "read"))?;
        file.seek(SeekFrom::Start(tensor.start)).map_err(Error::io(&self.path, "read"))?;
        while rest > 0 {
            let piece = &mut buffer[..rest.min(PIECE)];
            file.read_exact(piece).map_err(Error::io(&self.path, "read"))?;
            if tensor.checksum.is_some() {
                hash.update(piece);
            }
            take(piece);
            rest -= piece.len();
        }
        let sum = hash.finalize();
        match tensor.checksum.filter(|checksum| *checksum != sum) {
            Some(_) => Err(Error::file(&self.path, "a storage is damaged: another checksum than the zip's", CURE)),
            None => Ok(()),
        }
    }
}

impl StoredTensor {
    fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(dim, stride)| {
            let fits = *dim == 1 || *stride == expected;
            expected *= dim;
            fits
        })
    }
}

fn gather(bytes: &[u8], tensor: &StoredTensor, width: usize) -> Vec<u8> {
    let count = tensor.shape.iter().product::<usize>();
    let mut out = Vec::with_capacity(count * width);
    for i in 0..count {
        let (mut rest, mut at) = (i, 0);
        for (dim, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        out.extend_from_slice(&bytes[at * width..(at + 1) * width]);
    }
    out
}

/// An entry as it stands in the file, its checksum checked.
fn read_entry(zip: &mut ZipArchive<File>, index: usize, most: u64) -> std::result::Result<Vec<u8>, String> {
    let entry = zip.by_index_raw(index).map_err(|e| e.to_string())?;
    let name = entry.name().map_err(|e| e.to_string())?.into_owned();
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name:.80} is compressed, which torch.save does not write"));
    }
    if entry.size() > most {
        return Err(format!("{name:.80} of {} bytes, expected at most {most}", entry.size()));
    }
    let (checksum, size) = (checksum(entry.crc32()), entry.size());
    let mut bytes = Vec::new();
    entry.take(size).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    match checksum.filter(|checksum| crc32fast::hash(&bytes) != *checksum) {
        Some(_) => Err(format!("{name:.80} is damaged: another checksum than the zip's")),
        None => Ok(bytes),
    }
}

/// A zip's checksum of an entry; PyTorch writes 0 where it was told to compute none, and then nothing can be checked.
fn checksum(crc: u32) -> Option<u32> {
    Some(crc).filter(|crc| *crc != 0)
}

/// Every storage by its key, checked to lie within the file.
fn storages(
    zip: &mut ZipArchive<File>,
    prefix: &str,
    length: u64,
) -> std::result::Result<BTreeMap<String, Storage>, String> {
    let mut storages = BTreeMap::new();
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(|e| e.to_string())?;
        let name = entry.name().map_err(|e| e.to_string())?.into_owned();
        let Some(key) = name.strip_prefix(prefix) else { continue };
        if entry.compression() != CompressionMethod::Stored || entry.size() != entry.compressed_size() {
            return Err(format!("storage {key} is compressed, which torch.save does not write"));
        }
        let start = entry.data_start().ok_or_else(|| format!("storage {key} has no place in the file"))?;
        storages.insert(key.to_owned(), Storage { start, bytes: entry.size(), checksum: checksum(entry.crc32()) });
    }
    let beyond = storages.iter().find(|(_, s)| s.start.checked_add(s.bytes).is_none_or(|end| end > length));
    match beyond {
        Some((key, _)) => Err(format!("storage {key} reaches beyond the end of the file")),
        None => Ok(storages),
    }
}

/// The dictionary that holds the weights; names are borrowed, since one long text may stand for many of them.
fn state_dict(pickle: &Pickle) -> BTreeMap<&str, Id> {
    let top = named(pickle, pickle.root());
    let holds_calls = |dict: &BTreeMap<&str, Id>| dict.values().any(|id| matches!(pickle.get(*id), Value::Call { .. }));
    let nested = ["model", "state_dict", "module"].iter().find_map(|key| {
        let inner = named(pickle, *top.get(key)?);
        holds_calls(&inner).then_some(inner)
    });
    nested.unwrap_or(top)
}

/// The entries of a dictionary whose keys are names; of two with one key, the later.
fn named(pickle: &Pickle, id: Id) -> BTreeMap<&str, Id> {
    let Value::Dict(pairs) = pickle.get(id) else { return BTreeMap::new() };
    let named = |(key, value): &(Id, Id)| match pickle.get(*key) {
        Value::Text(name) if name.len() <= MAX_NAME => Some((&**name, *value)),
        _ => None,
    };
    pairs.iter().filter_map(named).collect()
}

/// The tensor that a value would have become; `None` for what is no tensor or has a type without floats or bytes.
fn stored_tensor(
    pickle: &Pickle,
    value: Id,
    storages: &BTreeMap<String, Storage>,
) -> std::result::Result<Option<StoredTensor>, String> {
    // A parameter wraps a tensor, once.
    let data = match torch_call(pickle, value) {
        Some(("_rebuild_parameter", [data, ..])) => *data,
        _ => value,
    };
    match torch_call(pickle, data) {
        Some(("_rebuild_tensor_v2", [storage, offset, shape, strides, ..])) => {
            let Some((key, dtype)) = storage_of(pickle, *storage) else { return Ok(None) };
            let storage = storages.get(key).ok_or_else(|| format!("storage {key:.80} is not in the file"))?;
            let offset = size(pickle, *offset).ok_or("an offset that is no size")?;
            let sizes = |id: Id| -> Option<Vec<usize>> {
                let Value::Tuple(items) = pickle.get(id) else { return None };
                if items.len() > MAX_SIDES {
                    return None;
                }
                items.iter().map(|id| size(pickle, *id)).collect()
            };
            let shape = sizes(*shape).ok_or("a shape that is no tuple of up to 8 sizes")?;
            let strides =
                sizes(*strides).filter(|s| s.len() == shape.len()).ok_or("strides that do not fit its shape")?;
            view(*storage, dtype, offset, shape, strides).map(Some)
        }
        _ => Ok(None),
    }
}

/// The function of `torch._utils` that a value would have come from, and its arguments.
fn torch_call(pickle: &Pickle, value: Id) -> Option<(&str, &[Id])> {
    let Value::Call { callable, args } = pickle.get(value) else { return None };
    match (pickle.get(*callable), pickle.get(*args)) {
        (Value::Global(module, name), Value::Tuple(args)) if **module == *"torch._utils" => Some((name, args)),
        _ => None,
    }
}

/// A view that has been checked to lie within its storage.
fn view(
    storage: Storage,
    dtype: DType,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
) -> std::result::Result<StoredTensor, String> {
    let width = dtype.size_in_bytes() as u64;
    let held = storage.bytes / width;
    let count = elements(&shape).ok_or("a shape that overflows")?;
    let last = shape
        .iter()
        .zip(&strides)
        .try_fold(0usize, |last, (dim, stride)| last.checked_add(dim.saturating_sub(1).checked_mul(*stride)?));
    let span = if count == 0 { 0 } else { last.and_then(|last| last.checked_add(1)).ok_or("strides that overflow")? };
    let fits = offset.checked_add(span).is_some_and(|end| end as u64 <= held) && count as u64 <= held;
    if !fits {
        return Err(format!("shape {shape:?} at {offset} needs more than the {held} values of its storage"));
    }
    let start = storage.start + offset as u64 * width;
    let whole = span as u64 * width == storage.bytes;
    Ok(StoredTensor { dtype, shape, strides, start, span, checksum: storage.checksum.filter(|_| whole) })
}

/// The key and type of a `('storage', class, key, place, length)` reference.
fn storage_of(pickle: &Pickle, id: Id) -> Option<(&str, DType)> {
    let Value::Persistent(id) = pickle.get(id) else { return None };
    let Value::Tuple(items) = pickle.get(*id) else { return None };
    let [_, class, key, ..] = items.as_slice() else { return None };
    let (Value::Global(_, class), Value::Text(key)) = (pickle.get(*class), pickle.get(*key)) else { return None };
    let dtype = match &**class {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "ByteStorage" | "BoolStorage" => DType::U8,
        _ => return None,
    };
    Some((key, dtype))
}

fn size(pickle: &Pickle, id: Id) -> Option<usize> {
    if let Value::Int(value) = pickle.get(id) { usize::try_from(*value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    /// A `.pth` of the given entries.
    fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> PathBuf {
        let path = tempfile::tempdir().unwrap().keep().join("file.pth");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in entries {
            zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    /// `{'w': tensor}` of float32 with this offset, shape and strides, in protocol 0.
    fn pickle(offset: i64, shape: &str, strides: &str) -> Vec<u8> {
        let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ";
        format!("(S'w'\nctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n({shape}t({strides}tI00\nNtRd.")
            .into_bytes()
    }

    fn open(pickle: &[u8], storage: &[u8]) -> Result<PthFile> {
        PthFile::open(&archive(&[("a/data.pkl", pickle), ("a/data/0", storage)], CompressionMethod::Stored))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn a_transposed_view_is_read_row_by_row() {
        let file = open(&pickle(1, "I2\nI2\n", "I1\nI2\n"), &floats(&[9., 1., 2., 3., 4.])).unwrap();
        let tensor = file.load(&file.tensors()["w"]).unwrap();
        assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1., 3.], [2., 4.]]);
    }

    #[test]
    fn each_damaged_file_is_refused() {
        let four = floats(&[0.; 4]);
        let message = |result: Result<PthFile>| result.unwrap_err().to_string();
        for (shape, strides, offset, words) in [
            ("I5\n", "I1\n", 0, "needs more than the 4 values"),
            ("I4\n", "I1\n", 1, "needs more than the 4 values"),
            ("I2\nI2\n", "I9\nI1\n", 0, "needs more than the 4 values"),
            ("I1000000\nI1000000\n", "I0\nI0\n", 0, "needs more than the 4 values"),
            ("I4611686018427387904\nI4611686018427387904\n", "I1\nI1\n", 0, "overflows"),
            ("I2\nI2\n", "I1\n", 0, "strides that do not fit"),
            ("I-2\n", "I1\n", 0, "no tuple of up to 8 sizes"),
            ("I2\n", "I1\n", -1, "no size"),
        ] {
            let message = message(open(&pickle(offset, shape, strides), &four));
            assert!(message.contains("`w`") && message.contains(words), "{message}");
        }
        let good = pickle(0, "I4\n", "I1\n");
        assert!(open(&good, &four).is_ok());
        let with = |entries: &[(&str, &[u8])]| message(PthFile::open(&archive(entries, CompressionMethod::Stored)));
        assert!(with(&[("a/data/0", &four)]).contains("without data.pkl"));
        assert!(with(&[("a/data.pkl", &good)]).contains("storage 0 is not in the file"));
        assert!(with(&[("a/data.pkl", &good), ("a/byteorder", b"big"), ("a/data/0", &four)]).contains("`big`"));
        assert!(with(&[("a/data.pkl", b"h\x01.")]).contains("memo 1"));
    }

    #[test]
    fn a_name_or_a_shape_shared_by_many_is_not_copied_for_each() {
        let started = std::time::Instant::now();
        // A megabyte of name for each of 200,000 entries: 200 GB if copied or compared.
        let mut long = b"(S'model'\n(X\x00\x00\x10\x00".to_vec();
        long.extend(std::iter::repeat_n(b'a', 1 << 20));
        long.extend(b"p0\n1".iter().chain(b"(".iter()).chain(&b"g0\nN".repeat(200_000)).chain(b"dd."));
        assert!(open(&long, &[]).unwrap_err().to_string().len() < 400);
        // A hundred thousand sides for each of 50,000 tensors: 80 GB if copied.
        let sides = "I1\n".repeat(100_000);
        let tensor = String::from_utf8(pickle(0, &sides, &sides)).unwrap();
        let tensor = tensor.trim_start_matches("(S'w'\n").trim_end_matches("d.");
        let names: String = (0..50_000).map(|i| format!("S'{i}'\ng0\n")).collect();
        let message = open(format!("(S'first'\n{tensor}p0\n{names}d.").as_bytes(), &[0; 16]).unwrap_err().to_string();
        assert!(message.contains("up to 8 sizes"), "{message}");
        assert!(started.elapsed().as_secs() < 5);
    }

    /// Changes a field of an entry's two headers: its place after each signature, and the new value.
    fn with_field(path: &Path, entry: &str, [local, central]: [usize; 2], value: &[u8]) {
        let mut bytes = std::fs::read(path).unwrap();
        for (signature, name_at, field) in [(b"PK\x03\x04", 30, local), (b"PK\x01\x02", 46, central)] {
            let named =
                |at: &usize| bytes[*at..].starts_with(signature) && bytes[at + name_at..].starts_with(entry.as_bytes());
            let at = (0..bytes.len() - 50).find(named).unwrap() + field;
            bytes[at..at + value.len()].copy_from_slice(value);
        }
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn compressed_entries_and_sizes_that_lie_are_refused() {
        let good = pickle(0, "I4\n", "I1\n");
        for (entry, fields, value, words) in [
            ("a/data.pkl", [8, 10], [8, 0].as_slice(), "ompress"),
            ("a/data/0", [8, 10], &[8, 0], "compressed"),
            ("a/data/0", [22, 24], &[0, 1, 0, 0], "storage 0"),
            ("a/data/0", [18, 20], &[0, 1, 0, 0], "storage 0"),
        ] {
            let path = archive(&[("a/data.pkl", &good), ("a/data/0", &[0; 16])], CompressionMethod::Stored);
            with_field(&path, entry, fields, value);
            let message = PthFile::open(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{entry} {fields:?}: {message}");
        }
        let path = archive(&[("a/data.pkl", &good), ("a/data/0", &[0; 16])], CompressionMethod::Stored);
        with_field(&path, "a/data/0", [18, 20], &[0, 0, 1, 0, 0, 0, 1, 0]);
        assert!(PthFile::open(&path).unwrap_err().to_string().contains("beyond the end"));
    }

    #[test]
    fn damage_is_found_by_the_zips_checksums_where_it_carries_them() {
        let good = pickle(0, "I4\n", "I1\n");
        let entries: [(&str, &[u8]); 2] = [("a/data.pkl", &good), ("a/data/0", &floats(&[7.5; 4]))];
        let path = archive(&entries, CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        let load = || PthFile::open(&path).and_then(|file| file.load(&file.tensors()["w"]));
        assert_eq!(load().unwrap().to_vec1::<f32>().unwrap(), [7.5; 4]);
        let damage = |needle: &[u8]| {
            let mut bytes = whole.clone();
            let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        };
        // One bit of a value, and one of the pickle: "cpu" becomes "bpu", which nothing reads.
        for (needle, words) in [(floats(&[7.5]), "a storage is damaged"), (b"cpu".to_vec(), "a/data.pkl is damaged")] {
            damage(&needle);
            let message = load().unwrap_err().to_string();
            assert!(message.contains(words) && message.contains("checksum"), "{message}");
        }
        // PyTorch writes zeros for checksums where `set_crc32_options(False)` was called.
        damage(&floats(&[7.5]));
        with_field(&path, "a/data/0", [14, 16], &[0; 4]);
        assert!(load().is_ok());
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let whole = archive(
            &[("a/data.pkl", &pickle(0, "I4\n", "I1\n")), ("a/data/0", &floats(&[0.; 4]))],
            CompressionMethod::Stored,
        );
        let bytes = std::fs::read(&whole).unwrap();
        for end in 0..bytes.len() {
            std::fs::write(&whole, &bytes[..end]).unwrap();
            assert!(PthFile::open(&whole).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn parameters_within_parameters_do_not_exhaust_the_stack() {
        let mut bytes = b"(S'w'\nctorch._utils\n_rebuild_parameter\np0\n".to_vec();
        let depth = 100_000;
        bytes.extend(b"h\x00".repeat(depth));
        bytes.extend(b"N\x85R");
        bytes.extend(b"\x85R".repeat(depth));
        bytes.extend(b"d.");
        assert!(open(&bytes, &[]).unwrap_err().to_string().contains("no tensors"));
    }

    #[test]
    fn a_parameter_is_its_tensor() {
        let tensor = String::from_utf8(pickle(0, "I2\n", "I1\n")).unwrap();
        let tensor = tensor.trim_start_matches("(S'w'\n").trim_end_matches("d.");
        let parameter = format!("(S'w'\nctorch._utils\n_rebuild_parameter\n({tensor}I01\nNtRd.");
        let file = open(parameter.as_bytes(), &floats(&[1., 2., 0., 0.])).unwrap();
        assert_eq!(file.load(&file.tensors()["w"]).unwrap().to_vec1::<f32>().unwrap(), [1., 2.]);
    }

    #[test]
    fn an_empty_tensor_with_an_overflowing_shape_is_refused() {
        let strides = "I1\nI1099511627776\nI1\n";
        let message = open(&pickle(0, "I0\nI1099511627776\nI1099511627776\n", strides), &floats(&[0.; 4]))
            .and_then(|file| file.load(&file.tensors()["w"]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("overflows"), "{message}");
        let file = open(&pickle(0, "I0\nI3\n", "I3\nI1\n"), &[]).unwrap();
        assert_eq!(file.load(&file.tensors()["w"]).unwrap().dims(), [0, 3]);
    }

    #[test]
    fn every_storage_that_candle_has_a_type_for_is_read() {
        for (class, dtype) in [
            ("FloatStorage", DType::F32),
            ("DoubleStorage", DType::F64),
            ("HalfStorage", DType::F16),
            ("BFloat16Storage", DType::BF16),
            ("LongStorage", DType::I64),
            ("IntStorage", DType::I32),
            ("ShortStorage", DType::I16),
            ("ByteStorage", DType::U8),
            ("BoolStorage", DType::U8),
        ] {
            let bytes =
                String::from_utf8(pickle(0, "I2\n", "I1\n")).unwrap().replace("\nFloatStorage", &format!("\n{class}"));
            let file = open(bytes.as_bytes(), &[0; 32]).unwrap();
            let tensor = file.load(&file.tensors()["w"]).unwrap();
            assert_eq!((tensor.dtype(), tensor.dims()), (dtype, [2].as_slice()));
        }
    }

    #[test]
    fn a_file_without_tensors_says_what_to_save() {
        for bytes in [b"}.".as_slice(), b"ctorchvision\nSwinTransformer\n)\x81}b.", b"(S'model'\n}d."] {
            let message = open(bytes, &[]).unwrap_err().to_string();
            assert!(message.contains("no tensors") && message.contains("state_dict()"), "{message}");
        }
    }

    #[test]
    fn a_model_key_without_tensors_hides_none() {
        let nested = String::from_utf8(pickle(0, "I4\n", "I1\n")).unwrap().replacen("(S'w'", "(S'model'\n}S'w'", 1);
        let file = open(nested.as_bytes(), &floats(&[0.; 4])).unwrap();
        assert_eq!(file.tensors().keys().collect::<Vec<_>>(), ["w"]);
    }

    #[test]
    fn no_changed_byte_of_a_file_makes_it_panic() {
        let entries: [(&str, &[u8]); 3] =
            [("a/data.pkl", &pickle(0, "I2\nI2\n", "I1\nI2\n")), ("a/byteorder", b"little"), ("a/data/0", &[0; 16])];
        let path = archive(&entries, CompressionMethod::Stored);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                std::fs::write(&path, &bytes).unwrap();
                let _ = PthFile::open(&path)
                    .map(|file| file.tensors().values().map(|tensor| file.load(tensor).is_ok()).collect::<Vec<_>>());
            }
        }
    }

    /// A whole training checkpoint: a pickled configuration, an optimizer's state and a scheduler lie beside the weights.
    fn released() -> Vec<u8> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/released_w4_64.pth");
        std::fs::read(golden).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]
        #[test]
        fn no_damage_to_a_training_checkpoint_makes_it_panic(
            changes in prop::collection::vec((0..48_000usize, any::<u8>()), 1..4),
            end in 0..1600usize,
        ) {
            let mut bytes = released();
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            let length = bytes.len();
            // The zip's directory lies at the end: half of the cases change it too, the others leave it readable.
            if end < 800 {
                bytes[length - 1 - end] ^= 0x41;
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("damaged.pth");
            std::fs::write(&path, bytes).unwrap();
            if let Ok(file) = PthFile::open(&path) {
                file.tensors().values().for_each(|tensor| drop(file.load(tensor)));
            }
        }
    }
}
