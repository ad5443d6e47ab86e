//! A variable of a MATLAB 5 file, found by its name.

use super::element::{COMPRESSED, Elements, MATRIX, Origin, TAG};
use super::matrix::{Head, Matrix};
use crate::data::numbers::ByteOrder;
use crate::files::open_regular;
use crate::{Error, Result};
use flate2::bufread::ZlibDecoder;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The most bytes that a variable may have, unpacked, where no other limit is given: 512 MiB.
///
/// A mask of an image of 500 x 500 takes a quarter of a megabyte, and an image has one for each object and each part of one.
pub const BYTE_LIMIT: u64 = 1 << 29;

/// Bytes of text and version before the first element.
const HEADER: usize = 128;
/// Within so many bytes a matrix says its class, its size and its name.
const HEAD: u64 = 1024;
/// More variables than anybody looks through for one.
const MOST_VARIABLES: usize = 1000;
/// The most that a byte of a compressed stream can stand for.
const MOST_PACKED: u64 = 1032;

/// One variable, unpacked and not looked at any further.
#[derive(Clone, Debug)]
pub struct Variable {
    path: PathBuf,
    order: ByteOrder,
    /// What stands in the matrix's tag.
    bytes: Vec<u8>,
}

impl Variable {
    /// Reads the variable of this name, of at most [`BYTE_LIMIT`].
    ///
    /// # Errors
    /// A file that cannot be read, is no MATLAB 5 file or is damaged; one without this variable, which names those that it has; a
    /// variable of more bytes.
    pub fn read(path: impl AsRef<Path>, name: &str) -> Result<Self> {
        Self::read_within(path, name, BYTE_LIMIT)
    }

    /// [`Variable::read`] within another limit on the bytes of the variable, unpacked.
    ///
    /// # Errors
    /// As there.
    pub fn read_within(path: impl AsRef<Path>, name: &str, bytes: u64) -> Result<Self> {
        let path = path.as_ref();
        let mut file = MatFile::open(path)?;
        let mut others = Vec::new();
        while let Some((kind, length)) = file.next_element()? {
            if others.len() == MOST_VARIABLES {
                return Err(file.origin().damaged(format!("more than {MOST_VARIABLES} variables before `{name}`")));
            }
            let next = file.at + length;
            match file.variable(kind, length, name, bytes)? {
                Entry::Wanted(bytes) => return Ok(Self { path: path.to_owned(), order: file.order, bytes }),
                Entry::Other(other) => others.push(other),
            }
            file.go_to(next)?;
        }
        let others = others.iter().filter(|name| !name.is_empty()).take(20).cloned().collect::<Vec<_>>().join(", ");
        let has = if others.is_empty() { "none".to_owned() } else { others };
        Err(Error::file(path, format!("no variable `{name}`; it has {has}"), "take the file as it was published"))
    }

    /// What the variable holds.
    ///
    /// # Errors
    /// A damaged variable.
    pub fn matrix(&self) -> Result<Matrix<'_>> {
        let origin = Origin { path: &self.path, order: self.order };
        Matrix::read(Elements::new(origin, &self.bytes))
    }
}

/// What stands at a place of the file.
enum Entry {
    /// The matrix that was asked for, its tag left out.
    Wanted(Vec<u8>),
    /// Another's name; none where there is something else than a matrix.
    Other(String),
}

/// A file whose elements are read one after the other.
struct MatFile {
    path: PathBuf,
    order: ByteOrder,
    file: BufReader<File>,
    /// Where the next bytes lie.
    at: u64,
    length: u64,
}

impl MatFile {
    fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut file = BufReader::new(file);
        let mut header = [0; HEADER];
        if length >= HEADER as u64 {
            file.read_exact(&mut header).map_err(Error::io(path, "read"))?;
        }
        let order = match &header[HEADER - 4..] {
            [0, 1, b'I', b'M'] => ByteOrder::Little,
            [1, 0, b'M', b'I'] => ByteOrder::Big,
            [_, 2, b'I', b'M'] | [2, _, b'M', b'I'] => {
                let cure = "save it with save(..., '-v7')";
                return Err(Error::file(path, "a MATLAB 7.3 file, which is HDF5", cure));
            }
            _ => {
                let cure = "give a file of MATLAB 5 to 7, saved with save(..., '-v7')";
                return Err(Error::file(path, "no MATLAB 5 file", cure));
            }
        };
        Ok(Self { path: path.to_owned(), order, file, at: HEADER as u64, length })
    }

    fn origin(&self) -> Origin<'_> {
        Origin { path: &self.path, order: self.order }
    }

    fn go_to(&mut self, place: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(place)).map_err(Error::io(&self.path, "read"))?;
        self.at = place;
        Ok(())
    }

    /// Type and length of the next element, whose bytes lie within the file; none at its end.
    fn next_element(&mut self) -> Result<Option<(u32, u64)>> {
        if self.at == self.length {
            return Ok(None);
        }
        let damaged = || self.origin().damaged("damaged: it ends within an element");
        if self.length - self.at < TAG as u64 {
            return Err(damaged());
        }
        let mut halves = [[0; 4]; 2];
        for half in &mut halves {
            self.file.read_exact(half).map_err(Error::io(&self.path, "read"))?;
        }
        self.at += TAG as u64;
        let tag = self.origin().tag(halves);
        let length = if tag.within { 0 } else { tag.length as u64 };
        if length > self.length - self.at {
            return Err(self.origin().damaged("damaged: it ends within an element"));
        }
        Ok(Some((tag.kind, length)))
    }

    /// The element of this type and length, if it is the matrix of this name.
    fn variable(&mut self, kind: u32, length: u64, name: &str, most: u64) -> Result<Entry> {
        let MatFile { path, order, file, .. } = self;
        let origin = Origin { path, order: *order };
        let mut stored = file.by_ref().take(length);
        match kind {
            MATRIX => Content { origin, stream: &mut stored, length }.variable(name, most),
            COMPRESSED => {
                let mut unpacked = ZlibDecoder::new(stored);
                let mut tag = [[0; 4]; 2];
                for half in &mut tag {
                    unpacked.read_exact(half).map_err(|e| origin.damaged(format!("damaged: {e}")))?;
                }
                let tag = origin.tag(tag);
                let announced = tag.length as u64;
                if tag.kind != MATRIX || tag.within || announced > length.saturating_mul(MOST_PACKED) {
                    return Err(origin.damaged("damaged: something else than a matrix was compressed"));
                }
                Content { origin, stream: &mut unpacked, length: announced }.variable(name, most)
            }
            _ => Ok(Entry::Other(String::new())),
        }
    }
}

/// A matrix's bytes, from a file or unpacked on the way.
struct Content<'a, R> {
    origin: Origin<'a>,
    stream: R,
    /// How many bytes there should be.
    length: u64,
}

impl<R: Read> Content<'_, R> {
    /// Reads its start, and the rest if it is the matrix of this name.
    fn variable(mut self, name: &str, most: u64) -> Result<Entry> {
        let mut bytes = Vec::new();
        self.read_to(self.length.min(HEAD), &mut bytes)?;
        let found = Head::read(&mut Elements::new(self.origin, &bytes))?.name;
        if found != name.as_bytes() {
            return Ok(Entry::Other(String::from_utf8_lossy(found).into_owned()));
        }
        if self.length > most {
            let problem = format!("`{name}` has {} bytes, more than the limit of {most}", self.length);
            return Err(Error::file(self.origin.path, problem, "make it smaller"));
        }
        self.read_to(self.length, &mut bytes)?;
        // Beyond the last byte a compressed stream has its checksum, and nothing else.
        match self.stream.read(&mut [0]).map_err(|e| self.origin.damaged(format!("damaged: {e}")))? {
            0 => Ok(Entry::Wanted(bytes)),
            _ => Err(self.origin.damaged("damaged: a variable of more bytes than it says")),
        }
    }

    /// Reads on until there are so many bytes, which the file's own length warrants.
    fn read_to(&mut self, length: u64, bytes: &mut Vec<u8>) -> Result<()> {
        let more = length - bytes.len() as u64;
        let too_large = |_| self.origin.damaged(format!("a variable of {length} bytes, which no memory holds"));
        bytes.try_reserve_exact(more as usize).map_err(too_large)?;
        let read = self.stream.by_ref().take(more).read_to_end(bytes);
        match read.map_err(|e| self.origin.damaged(format!("damaged: {e}")))? as u64 == more {
            true => Ok(()),
            false => Err(self.origin.damaged("damaged: a variable of fewer bytes than it says")),
        }
    }
}
