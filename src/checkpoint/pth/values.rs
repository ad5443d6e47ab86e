//! Values of a tensor, read from their storage once its bytes are known to be what was written.

use super::archive::Storage;
use super::file::{CURE, PthFile};
use super::tensor::StoredTensor;
use crate::{Error, Result};
use crc32fast::Hasher;

/// Bytes that are read and summed at once: they stay in the cache.
const PIECE: usize = 1 << 16;

impl PthFile {
    /// Fills `bytes` with a tensor's values in row-major order, whatever its strides.
    ///
    /// # Errors
    /// A file that can no longer be read; a storage of another checksum than the zip's.
    pub(super) fn read_tensor(&self, tensor: &StoredTensor, bytes: &mut [u8]) -> Result<()> {
        if tensor.is_row_major() {
            return self.read_span(tensor, bytes);
        }
        let mut span = vec![0; tensor.span * tensor.width()];
        self.read_span(tensor, &mut span)?;
        gather(&span, tensor, bytes);
        Ok(())
    }

    /// Fills `bytes` from a tensor's first value to its last; where they are its whole storage, they are checked on the way.
    fn read_span(&self, tensor: &StoredTensor, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let storage = &*tensor.storage;
        if (bytes.len() as u64) < storage.bytes {
            self.check(storage)?;
        }
        let mut hash = self.unchecked(storage).then(Hasher::new);
        let mut start = storage.start + (tensor.offset * tensor.width()) as u64;
        for piece in bytes.chunks_mut(PIECE) {
            self.file.read(start, piece)?;
            hash.iter_mut().for_each(|hash| hash.update(piece));
            start += piece.len() as u64;
        }
        hash.into_iter().for_each(|hash| storage.judge(hash));
        self.refuse_damaged(storage)
    }

    /// Reads a storage for its checksum alone, the first time that it is asked for.
    fn check(&self, storage: &Storage) -> Result<()> {
        if self.unchecked(storage) {
            let (mut hash, mut piece) = (Hasher::new(), vec![0; PIECE]);
            for done in (0..storage.bytes).step_by(PIECE) {
                let piece = &mut piece[..(storage.bytes - done).min(PIECE as u64) as usize];
                self.file.read(storage.start + done, piece)?;
                hash.update(piece);
            }
            storage.judge(hash);
        }
        self.refuse_damaged(storage)
    }

    /// Whether there is a checksum that nobody has compared.
    fn unchecked(&self, storage: &Storage) -> bool {
        storage.checksum.is_some() && storage.whole.get().is_none()
    }

    fn refuse_damaged(&self, storage: &Storage) -> Result<()> {
        if storage.whole.get() != Some(&false) {
            return Ok(());
        }
        let problem = format!("storage {:.80} is damaged: another checksum than the zip's", storage.key);
        Err(Error::file(self.file.path(), problem, CURE))
    }
}

impl Storage {
    /// Notes whether bytes of this checksum are what was written.
    fn judge(&self, hash: Hasher) {
        let sum = hash.finalize();
        self.whole.get_or_init(|| self.checksum.is_none_or(|checksum| checksum == sum));
    }
}

/// Copies each value of `out`, in row-major order, from its place in the span.
fn gather(span: &[u8], tensor: &StoredTensor, out: &mut [u8]) {
    let width = tensor.width();
    for (i, value) in out.chunks_exact_mut(width).enumerate() {
        let (mut rest, mut at) = (i, 0);
        for (dim, stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        value.copy_from_slice(&span[at * width..][..width]);
    }
}
