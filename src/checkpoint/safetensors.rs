//! A safetensors file: its header, checked, and its tensors, each by its place.

use super::format::TensorFile;
use super::opened::Opened;
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};

/// More bytes of header than any file has: what safetensors' own readers take.
const MOST_HEADER: u64 = 100_000_000;
/// Longer than any weight's name: it would stand in every message about the weight.
const MOST_NAME: usize = 1024;

/// The tensors of a safetensors file, found but not yet read.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    file: Opened,
    tensors: BTreeMap<String, Place>,
    metadata: HashMap<String, String>,
}

/// Where a tensor's values lie, and what they are.
#[derive(Debug)]
struct Place {
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
}

impl SafetensorsFile {
    /// Reads the header: tensors follow one another without a hole, each of its shape's size, up to the end of the file.
    ///
    /// # Errors
    /// A file that is no safetensors, or is damaged.
    pub(crate) fn open(file: Opened) -> Result<Self> {
        let refuse = |problem: String| {
            let cure = "give a safetensors file or one of torch.save, whole and undamaged";
            Error::file(file.path(), format!("no safetensors: {problem}"), cure)
        };
        let mut length = [0; 8];
        if file.length() < length.len() as u64 {
            return Err(refuse(format!("{} bytes in all", file.length())));
        }
        file.read(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        let start = length.saturating_add(8);
        if length > MOST_HEADER || start > file.length() {
            return Err(refuse(format!("a header of {length} bytes in a file of {}", file.length())));
        }
        let mut text = vec![0; length as usize];
        file.read(8, &mut text)?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|e| refuse(format!("its header: {e}")))?;
        if header.data_len() as u64 != file.length() - start {
            let (said, held) = (header.data_len(), file.length() - start);
            return Err(refuse(format!("{held} bytes of values, where its header says {said}")));
        }
        let tensors = header.tensors();
        if let Some(name) = tensors.keys().find(|name| name.len() > MOST_NAME) {
            return Err(refuse(format!("a tensor's name of {} bytes", name.len())));
        }
        let place = |info: &TensorInfo| Place {
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: start + info.data_offsets.0 as u64,
        };
        let tensors = tensors.into_iter().map(|(name, info)| (name, place(info))).collect();
        Ok(Self { tensors, metadata: header.metadata().clone().unwrap_or_default(), file })
    }
}

impl TensorFile for SafetensorsFile {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.tensors.get(name).map(|place| (place.dtype, place.shape.as_slice()))
    }

    fn read(&self, name: &str, bytes: &mut [u8]) -> Result<()> {
        self.tensors.get(name).map_or(Ok(()), |place| self.file.read(place.start, bytes))
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}
