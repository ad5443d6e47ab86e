//! The tensors that a pickle names: views of storages, checked to lie within them.

use super::archive::Storage;
use crate::checkpoint::format::elements;
use crate::checkpoint::pickle::Pickle;
use crate::checkpoint::pickle::{Id, Value};
use candle_core::DType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A tensor in a file.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) storage: Arc<Storage>,
    /// The first value, counted in values of the storage.
    pub(super) offset: usize,
    /// Values from the first to the last, both counted.
    pub(super) span: usize,
}

impl StoredTensor {
    /// Bytes of a value.
    pub(super) fn width(&self) -> usize {
        self.dtype.size_in_bytes()
    }

    /// Bytes that reading it takes: those that it gives, or, where it steps over others, all from the first to the last.
    pub(super) fn bytes_read(&self) -> u64 {
        let count = self.shape.iter().product::<usize>();
        count.max(self.span) as u64 * self.width() as u64
    }

    /// Whether its values lie in the file as they are given.
    pub(super) fn is_row_major(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(dim, stride)| {
            let fits = *dim == 1 || *stride == expected;
            expected *= dim;
            fits
        })
    }
}

/// Longer than any weight's name: many entries may share one long text, and sorting them would compare all of it.
const MAX_NAME: usize = 1024;

/// More sides than any weight has: many tensors may share one long tuple, and each would copy it.
const MAX_SIDES: usize = 8;

type Found<T> = Result<T, String>;
type Storages = BTreeMap<String, Arc<Storage>>;

/// Every tensor by its name.
pub(super) fn stored(pickle: &Pickle, storages: &Storages) -> Found<BTreeMap<String, StoredTensor>> {
    let mut tensors = BTreeMap::new();
    for (name, value) in state_dict(pickle) {
        let tensor = stored_tensor(pickle, value, storages).map_err(|e| format!("tensor `{name:.80}`: {e}"))?;
        if let Some(tensor) = tensor {
            tensors.insert(name.to_owned(), tensor);
        }
    }
    Ok(tensors)
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
pub(super) fn named(pickle: &Pickle, id: Id) -> BTreeMap<&str, Id> {
    let Value::Dict(pairs) = pickle.get(id) else { return BTreeMap::new() };
    let named = |(key, value): &(Id, Id)| match pickle.get(*key) {
        Value::Text(name) if name.len() <= MAX_NAME => Some((&**name, *value)),
        _ => None,
    };
    pairs.iter().filter_map(named).collect()
}

/// The tensor that a value would have become; `None` for what is no tensor or has a type without floats or bytes.
fn stored_tensor(pickle: &Pickle, value: Id, storages: &Storages) -> Found<Option<StoredTensor>> {
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
            view(storage.clone(), dtype, offset, shape, strides).map(Some)
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
    storage: Arc<Storage>,
    dtype: DType,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
) -> Found<StoredTensor> {
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
    Ok(StoredTensor { dtype, shape, strides, storage, offset, span })
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
