//! MATLAB 5 files by hand, after the published description of the format.
#![allow(dead_code)] // each test takes its part

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

pub const DOUBLE: u32 = 6;
pub const UINT8: u32 = 9;
pub const UINT16: u32 = 11;

/// A writer in one of the two byte orders.
#[derive(Clone, Copy)]
pub struct Mat {
    pub big: bool,
}

pub const LITTLE: Mat = Mat { big: false };

impl Mat {
    pub fn u32(self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Of at most 4 bytes within its tag, otherwise filled up to 8.
    pub fn element(self, kind: u32, bytes: &[u8]) -> Vec<u8> {
        if (1..=4).contains(&bytes.len()) {
            let mut element = self.u32((bytes.len() as u32) << 16 | kind).to_vec();
            element.extend(bytes);
            element.resize(8, 0);
            return element;
        }
        let mut element = self.long(kind, bytes);
        element.resize(element.len().next_multiple_of(8), 0);
        element
    }

    /// With its length in the tag, and not filled up.
    pub fn long(self, kind: u32, bytes: &[u8]) -> Vec<u8> {
        [&self.u32(kind)[..], &self.u32(bytes.len() as u32), bytes].concat()
    }

    pub fn ints(self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }

    /// What every matrix begins with.
    pub fn head(self, name: &str, class: u32, dims: &[u32]) -> Vec<u8> {
        let flags = self.element(6, &self.ints(&[class, 0]));
        [flags, self.element(5, &self.ints(dims)), self.element(1, name.as_bytes())].concat()
    }

    pub fn matrix(self, name: &str, class: u32, dims: &[u32], content: &[u8]) -> Vec<u8> {
        self.long(14, &[&self.head(name, class, dims), content].concat())
    }

    /// Numbers stored as this kind.
    pub fn numbers(self, name: &str, class: u32, dims: &[u32], kind: u32, bytes: &[u8]) -> Vec<u8> {
        self.matrix(name, class, dims, &self.element(kind, bytes))
    }

    pub fn text(self, name: &str, text: &str) -> Vec<u8> {
        self.matrix(name, 4, &[1, text.len() as u32], &self.element(16, text.as_bytes()))
    }

    /// One row of structs, field by field of each.
    pub fn structs(self, name: &str, names: &[&str], values: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let slot = names.iter().map(|name| name.len()).max().unwrap_or_default() + 1;
        let mut slots = Vec::new();
        for name in names {
            slots.extend(name.bytes());
            slots.resize(slots.len().next_multiple_of(slot), 0);
        }
        let mut content = self.element(5, &self.u32(slot as u32));
        content.extend(self.element(1, &slots));
        values.iter().flatten().for_each(|value| content.extend(value));
        self.matrix(name, 2, &[1, values.len() as u32], &content)
    }

    pub fn cells(self, name: &str, cells: &[Vec<u8>]) -> Vec<u8> {
        self.matrix(name, 1, &[1, cells.len() as u32], &cells.concat())
    }

    /// As MATLAB compresses a variable: not filled up.
    pub fn compressed(self, element: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(element).unwrap();
        self.long(15, &encoder.finish().unwrap())
    }

    pub fn file(self, elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file, by hand".to_vec();
        bytes.resize(124, b' ');
        bytes.extend(if self.big { [1, 0, b'M', b'I'] } else { [0, 1, b'I', b'M'] });
        elements.iter().for_each(|element| bytes.extend(element));
        bytes
    }
}
