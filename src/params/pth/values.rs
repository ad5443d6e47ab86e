//! Values of a tensor, read from their storage once its bytes are known to be what was written.

use super::archive::Storage;
use super::tensor::StoredTensor;
use super::{CURE, PthFile};
use crate::params::checkpoint::append_f32;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use crc32fast::Hasher;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes that are read at once: they stay in the cache.
const PIECE: u64 = 1 << 16;

impl PthFile {
    /// Reads one tensor, in row-major order whatever its strides.
    ///
    /// A storage of which it is a part is read whole before the first of its parts, and compared with the zip's checksum.
    ///
    /// # Errors
    /// A file that can no longer be read; a storage of another checksum than the zip's.
    pub(in crate::params) fn load(&self, tensor: &StoredTensor) -> Result<Tensor> {
        let width = tensor.dtype.size_in_bytes();
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        if tensor.dtype == DType::F32 && tensor.is_row_major() {
            values.reserve_exact(tensor.span);
            self.read(tensor, |piece| append_f32(&mut values, piece))?;
            return Ok(Tensor::from_vec(values, tensor.shape.as_slice(), &Device::Cpu)?);
        }
        bytes.reserve_exact(tensor.span * width);
        self.read(tensor, |piece| bytes.extend_from_slice(piece))?;
        if !tensor.is_row_major() {
            bytes = gather(&bytes, tensor, width);
        }
        Ok(Tensor::from_raw_buffer(&bytes, tensor.dtype, &tensor.shape, &Device::Cpu)?)
    }

    /// Hands a tensor's bytes on in pieces; where they are its whole storage, they are checked on the way.
    fn read(&self, tensor: &StoredTensor, mut take: impl FnMut(&[u8])) -> Result<()> {
        let (storage, width) = (&*tensor.storage, tensor.dtype.size_in_bytes() as u64);
        let (first, length) = (tensor.offset as u64 * width, tensor.span as u64 * width);
        if length == 0 {
            return Ok(());
        }
        if length < storage.bytes {
            self.check(storage)?;
        }
        let mut hash = self.unchecked(storage).then(Hasher::new);
        self.pieces(storage.start + first, length, |piece| {
            hash.iter_mut().for_each(|hash| hash.update(piece));
            take(piece);
        })?;
        hash.into_iter().for_each(|hash| storage.judge(hash));
        self.refuse_damaged(storage)
    }

    /// Reads a storage for its checksum alone, the first time that it is asked for.
    fn check(&self, storage: &Storage) -> Result<()> {
        if self.unchecked(storage) {
            let mut hash = Hasher::new();
            self.pieces(storage.start, storage.bytes, |piece| hash.update(piece))?;
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
        Err(Error::file(&self.path, problem, CURE))
    }

    /// Bytes of the file, a piece at a time.
    fn pieces(&self, start: u64, length: u64, mut take: impl FnMut(&[u8])) -> Result<()> {
        let (mut left, mut buffer) = (length, vec![0; length.min(PIECE) as usize]);
        let mut file = File::open(&self.path).map_err(Error::io(&self.path, "read"))?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io(&self.path, "read"))?;
        while left > 0 {
            let piece = &mut buffer[..left.min(PIECE) as usize];
            file.read_exact(piece).map_err(Error::io(&self.path, "read"))?;
            take(piece);
            left -= piece.len() as u64;
        }
        Ok(())
    }
}

impl Storage {
    /// Notes whether bytes of this checksum are what was written.
    fn judge(&self, hash: Hasher) {
        let sum = hash.finalize();
        self.whole.get_or_init(|| self.checksum.is_none_or(|checksum| checksum == sum));
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
