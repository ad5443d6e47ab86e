//! The zip's directory: the entries that are read whole, and where the storages lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use zip::{CompressionMethod, ZipArchive};

/// What the others are named after.
pub(super) const PICKLE: &str = "data.pkl";

/// An opened zip with a pickle in it.
pub(super) struct Archive {
    zip: ZipArchive<File>,
    /// What stands before the name of every entry.
    prefix: String,
    /// Bytes of the whole file.
    length: u64,
}

/// Where a storage's bytes lie, and what is known of them.
#[derive(Debug)]
pub(super) struct Storage {
    /// Its name in the pickle.
    pub(super) key: String,
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// Where the zip carries one.
    pub(super) checksum: Option<u32>,
    /// Whether the bytes have that checksum, once they were read.
    pub(super) whole: OnceLock<bool>,
}

type Found<T> = Result<T, String>;

impl Archive {
    /// Reads the directory; what is wrong with it comes as words.
    pub(super) fn of(file: File, length: u64) -> Found<Self> {
        let zip = ZipArchive::new(file).map_err(|e| format!("damaged zip: {e}"))?;
        let pickle = zip.file_names().flatten().find(|name| name.ends_with(PICKLE)).map(|name| name.into_owned());
        let prefix = pickle.ok_or("a zip without data.pkl")?.trim_end_matches(PICKLE).to_owned();
        Ok(Self { zip, prefix, length })
    }

    /// An entry as it stands in the file, its checksum checked; `None` where there is none of this name.
    pub(super) fn entry(&mut self, name: &str, most: u64) -> Found<Option<Vec<u8>>> {
        match self.zip.index_for_name(&format!("{}{name}", self.prefix)) {
            Some(index) => read_entry(&mut self.zip, index, most).map(Some),
            None => Ok(None),
        }
    }

    /// Every storage by its key, checked to lie within the file and apart from the others: what is read of each is read once, so
    /// all of them together take no longer than the file.
    pub(super) fn storages(&mut self) -> Found<BTreeMap<String, Arc<Storage>>> {
        let (mut storages, prefix) = (BTreeMap::new(), format!("{}data/", self.prefix));
        for i in 0..self.zip.len() {
            let entry = self.zip.by_index_raw(i).map_err(|e| e.to_string())?;
            let name = entry.name().map_err(|e| e.to_string())?.into_owned();
            let Some(key) = name.strip_prefix(&prefix) else { continue };
            if entry.compression() != CompressionMethod::Stored || entry.size() != entry.compressed_size() {
                return Err(format!("storage {key:.80} is compressed, which torch.save does not write"));
            }
            let start = entry.data_start().ok_or_else(|| format!("storage {key:.80} has no place in the file"))?;
            let (bytes, checksum) = (entry.size(), checksum(entry.crc32()));
            let storage = Storage { key: key.to_owned(), start, bytes, checksum, whole: OnceLock::new() };
            storages.insert(key.to_owned(), Arc::new(storage));
        }
        self.check_places(&storages)?;
        Ok(storages)
    }

    fn check_places(&self, storages: &BTreeMap<String, Arc<Storage>>) -> Found<()> {
        let mut places: Vec<&Storage> = storages.values().map(Arc::as_ref).collect();
        if let Some(storage) = places.iter().find(|s| s.start.checked_add(s.bytes).is_none_or(|end| end > self.length))
        {
            return Err(format!("storage {:.80} reaches beyond the end of the file", storage.key));
        }
        places.retain(|storage| storage.bytes > 0);
        places.sort_by_key(|storage| storage.start);
        match places.windows(2).find(|pair| pair[0].start + pair[0].bytes > pair[1].start) {
            Some(pair) => Err(format!("storages {:.80} and {:.80} lie over each other", pair[0].key, pair[1].key)),
            None => Ok(()),
        }
    }
}

/// An entry as it stands in the file, its checksum checked.
fn read_entry(zip: &mut ZipArchive<File>, index: usize, most: u64) -> Found<Vec<u8>> {
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
