//! The elements that a MATLAB 5 file is made of: a tag that says a type and a number of bytes, and these bytes.

use crate::data::numbers::{ByteOrder, Number};
use crate::{Error, Result};
use std::path::Path;

/// The type of an element that is a matrix.
pub(super) const MATRIX: u32 = 14;
/// The type of an element that is a compressed one.
pub(super) const COMPRESSED: u32 = 15;
/// Bytes of a tag, and what most elements are filled up to a multiple of.
pub(super) const TAG: usize = 8;

/// Which file is read, and in which order it stores the bytes of a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) path: &'a Path,
    pub(super) order: ByteOrder,
}

impl Origin<'_> {
    pub(super) fn damaged(self, problem: impl ToString) -> Error {
        Error::file(self.path, problem, "save it again, in MATLAB with save(..., '-v7'), in SciPy with savemat")
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }

    /// Type and bytes of the element that this tag begins; where its bytes fit into the tag itself, the second half holds them.
    pub(super) fn tag(self, [first, second]: [[u8; 4]; 2]) -> Tag {
        let first = self.u32(first);
        match first >> 16 {
            0 => Tag { kind: first, length: self.u32(second) as usize, within: false },
            length => Tag { kind: first & 0xffff, length: length as usize, within: true },
        }
    }
}

/// What stands before an element's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) kind: u32,
    pub(super) length: usize,
    /// Whether the bytes lie in the tag.
    pub(super) within: bool,
}

/// One element: a type and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) kind: u32,
    pub(super) bytes: &'a [u8],
}

impl Element<'_> {
    /// The type of its numbers, if it holds some.
    pub(super) fn number(&self) -> Option<Number> {
        Some(match self.kind {
            1 => Number::I8,
            2 => Number::U8,
            3 => Number::I16,
            4 => Number::U16,
            5 => Number::I32,
            6 => Number::U32,
            7 => Number::F32,
            9 => Number::F64,
            12 => Number::I64,
            13 => Number::U64,
            _ => return None,
        })
    }

    /// The whole number that it is all of; one below 0 is none.
    pub(super) fn only(&self, order: ByteOrder) -> Option<usize> {
        let number = self.number().filter(|number| self.bytes.len() == number.bytes())?;
        let mut only = 0.0;
        number.each(self.bytes, order, |value| only = value);
        (only >= 0.0 && only <= f64::from(u32::MAX) && only.fract() == 0.0).then_some(only as usize)
    }
}

/// Elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements<'a> {
    pub(super) origin: Origin<'a>,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(super) fn new(origin: Origin<'a>, bytes: &'a [u8]) -> Self {
        Self { origin, rest: bytes }
    }

    /// Bytes that no element has been read from.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next element; there must be one.
    pub(super) fn next(&mut self) -> Result<Element<'a>> {
        let short = || self.origin.damaged("damaged: it ends within an element");
        let (tag, rest) = self.rest.split_first_chunk::<TAG>().ok_or_else(short)?;
        let [a, b, c, d, e, f, g, h] = *tag;
        let Tag { kind, length, within } = self.origin.tag([[a, b, c, d], [e, f, g, h]]);
        let bytes = if within { self.rest.get(4..TAG).and_then(|half| half.get(..length)) } else { rest.get(..length) };
        let bytes = bytes.ok_or_else(short)?;
        // The last of a matrix may lack what fills it up.
        self.rest = if within { rest } else { &rest[length.next_multiple_of(TAG).min(rest.len())..] };
        Ok(Element { kind, bytes })
    }
}
