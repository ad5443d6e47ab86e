//! A digest of the weights a source gave, so that an adapter knows its backbone again.

use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// SHA-256 of every weight that a source has given: names, shapes and values as f32, in the names' order.
///
/// Taken before weights are resized or cast, so that it depends on the backbone alone.
#[derive(Clone, Debug, Default)]
pub struct SourceDigest(Arc<Mutex<BTreeMap<String, [u8; 32]>>>);

impl SourceDigest {
    /// A builder over `source` that notes the digest of each weight it gives.
    pub fn watch(&self, source: VarBuilder<'static>) -> VarBuilder<'static> {
        let (dtype, device) = (source.dtype(), source.device().clone());
        VarBuilder::from_backend(Box::new(Watched { source, digest: self.clone() }), dtype, device)
    }

    /// The digest of all weights given so far, in hexadecimal.
    pub fn hex(&self) -> String {
        let digests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Sha256::new();
        for (name, digest) in digests.iter() {
            all.update(name.as_bytes());
            all.update([0]);
            all.update(digest);
        }
        all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn note(&self, name: &str, tensor: &Tensor) -> Result<()> {
        if !tensor.is_contiguous() {
            return Ok(()); // a stand-in for what the source lacks, which its load report refuses
        }
        let digest = tensor_digest(tensor)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), digest);
        Ok(())
    }
}

struct Watched {
    source: VarBuilder<'static>,
    digest: SourceDigest,
}

impl SimpleBackend for Watched {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, _: &Device) -> Result<Tensor> {
        let tensor = self.source.get_with_hints_dtype(shape, name, init, DType::F32)?;
        self.digest.note(name, &tensor)?;
        tensor.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> Result<Tensor> {
        let tensor = self.source.get_unchecked_dtype(name, DType::F32)?;
        self.digest.note(name, &tensor)?;
        tensor.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.source.contains_tensor(name)
    }
}

/// Values that are brought to bytes at once: they stay in the nearest cache.
const CHUNK: usize = 2048;

fn tensor_digest(tensor: &Tensor) -> Result<[u8; 32]> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let mut hash = Sha256::new();
    for dim in tensor.dims() {
        hash.update((*dim as u64).to_le_bytes());
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        candle_core::bail!("digest: expected f32 on the CPU, got {:?}", tensor.dtype())
    };
    let start = layout.start_offset();
    let mut buffer = [0; 4 * CHUNK];
    for chunk in values[start..start + tensor.elem_count()].chunks(CHUNK) {
        let bytes = &mut buffer[..4 * chunk.len()];
        bytes.chunks_exact_mut(4).zip(chunk).for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
        hash.update(bytes);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::random_source;

    #[test]
    fn equal_weights_have_equal_digests_in_any_order_and_type() -> Result<()> {
        let digest = |names: &[&str], seed: u64, dtype: DType| -> Result<String> {
            let digest = SourceDigest::default();
            let source = digest.watch(random_source(seed, dtype, &Device::Cpu));
            for name in names {
                source.pp("a").get_with_hints((2, 3), name, Init::Randn { mean: 0.0, stdev: 1.0 })?;
            }
            Ok(digest.hex())
        };
        let first = digest(&["x", "y"], 1, DType::F32)?;
        assert_eq!(first, digest(&["y", "x"], 1, DType::F64)?);
        assert_ne!(first, digest(&["x", "y"], 2, DType::F32)?);
        assert_ne!(first, digest(&["x"], 1, DType::F32)?);
        assert_eq!(first.len(), 64);
        Ok(())
    }
}
