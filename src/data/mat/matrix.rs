//! What a matrix of a MATLAB 5 file says of itself, and its numbers or text.

use super::element::{Element, Elements, MATRIX, TAG};
use super::grid::Numbers;
use super::structs::{Struct, Structs};
use crate::data::numbers::Number;
use crate::{Error, Result};

/// More sides than anybody's array has.
const MOST_SIDES: usize = 32;
/// Bytes of the longest text that is read.
const LONGEST_TEXT: usize = 1 << 16;

/// A matrix: numbers, text, cells or structs, not looked at yet.
#[derive(Clone, Debug)]
pub struct Matrix<'a> {
    /// As MATLAB numbers its classes.
    class: u8,
    complex: bool,
    dims: Vec<usize>,
    pub(super) content: Elements<'a>,
}

/// MATLAB's numbers of classes.
pub(super) mod class {
    pub(in crate::data::mat) const CELL: u8 = 1;
    pub(in crate::data::mat) const STRUCT: u8 = 2;
    pub(in crate::data::mat) const OBJECT: u8 = 3;
    pub(in crate::data::mat) const TEXT: u8 = 4;
    pub(in crate::data::mat) const SPARSE: u8 = 5;
    pub(in crate::data::mat) const DOUBLE: u8 = 6;
    pub(in crate::data::mat) const LAST_NUMBER: u8 = 15;
}

/// What stands at the start of a matrix: enough to know whether it is asked for.
pub(super) struct Head<'a> {
    class: u8,
    complex: bool,
    dims: Element<'a>,
    pub(super) name: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn read(elements: &mut Elements<'a>) -> Result<Self> {
        let flags = elements.next()?;
        let Some(flags) = flags.bytes.first_chunk().filter(|_| flags.number() == Some(Number::U32)) else {
            return Err(elements.origin.damaged("damaged: a matrix without its class"));
        };
        let flags = elements.origin.u32(*flags);
        let dims = elements.next()?;
        let name = elements.next()?.bytes;
        // An 8 in the second byte: a second array follows, of imaginary parts.
        Ok(Self { class: flags as u8, complex: flags >> 8 & 8 != 0, dims, name })
    }
}

impl<'a> Matrix<'a> {
    /// Of the bytes within its tag. None at all: an empty array, as it may stand in a cell or a field.
    pub(super) fn read(mut content: Elements<'a>) -> Result<Self> {
        if content.left() == 0 {
            return Ok(Self { class: class::DOUBLE, complex: false, dims: vec![0, 0], content });
        }
        let head = Head::read(&mut content)?;
        let damaged = || content.origin.damaged("damaged: a matrix without its size");
        let number = head.dims.number().filter(|_| head.dims.bytes.len() <= MOST_SIDES * 8).ok_or_else(damaged)?;
        let mut dims = Vec::new();
        number.each(head.dims.bytes, content.origin.order, |side| dims.push(side));
        let is_side = |side: &f64| *side >= 0.0 && *side <= f64::from(u32::MAX) && side.fract() == 0.0;
        if !dims.iter().all(is_side) {
            return Err(damaged());
        }
        Ok(Self {
            class: head.class,
            complex: head.complex,
            dims: dims.iter().map(|side| *side as usize).collect(),
            content,
        })
    }

    /// The next element of `content`, which must be a matrix.
    pub(super) fn next(content: &mut Elements<'a>) -> Result<Self> {
        let element = content.next()?;
        if element.kind != MATRIX {
            return Err(content.origin.damaged("damaged: something else where a matrix is expected"));
        }
        Self::read(Elements::new(content.origin, element.bytes))
    }

    /// Its sides: rows, columns, and further ones.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// How many elements it has.
    pub(super) fn count(&self) -> Result<usize> {
        let product = self.dims.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        product.ok_or_else(|| self.content.origin.damaged("damaged: a matrix of more elements than can be counted"))
    }

    /// Its numbers, of any class and stored in any type.
    ///
    /// # Errors
    /// Something else than real numbers; more than two sides; other bytes than its size asks for.
    pub fn numbers(&self) -> Result<Numbers<'a>> {
        let origin = self.content.origin;
        if !(class::DOUBLE..=class::LAST_NUMBER).contains(&self.class) || self.complex {
            return Err(self.other("real numbers"));
        }
        let &[height, width, ref further @ ..] = &*self.dims else { return Err(self.other("rows and columns")) };
        if further.iter().any(|side| *side != 1) {
            return Err(self.other("rows and columns"));
        }
        let count = self.count()?;
        let mut content = self.content;
        if count == 0 {
            return Ok(Numbers { height, width, number: Number::U8, order: origin.order, bytes: &[] });
        }
        let element = content.next()?;
        let number = element.number().ok_or_else(|| origin.damaged("damaged: numbers of no known type"))?;
        if count.checked_mul(number.bytes()) != Some(element.bytes.len()) {
            let got = element.bytes.len();
            return Err(origin
                .damaged(format!("damaged: {got} bytes for {height} x {width} numbers of {} each", number.bytes())));
        }
        Ok(Numbers { height, width, number, order: origin.order, bytes: element.bytes })
    }

    /// A line of text.
    ///
    /// # Errors
    /// Something else; text of several lines or of more than 64 KiB; bytes that are no text.
    pub fn text(&self) -> Result<String> {
        let origin = self.content.origin;
        if self.class != class::TEXT || self.dims.len() != 2 || self.dims[0] > 1 {
            return Err(self.other("a line of text"));
        }
        if self.is_empty() {
            return Ok(String::new());
        }
        let mut content = self.content;
        let element = content.next()?;
        if element.bytes.len() > LONGEST_TEXT {
            return Err(origin.damaged(format!("a text of {} bytes, more than {LONGEST_TEXT}", element.bytes.len())));
        }
        match element.kind {
            1 | 2 | 16 => Ok(String::from_utf8_lossy(element.bytes).into_owned()),
            4 | 17 => {
                let mut units = Vec::new();
                Number::U16.each(element.bytes, origin.order, |unit| units.push(unit as u16));
                Ok(String::from_utf16_lossy(&units))
            }
            _ => Err(origin.damaged("damaged: a text of no known kind")),
        }
    }

    /// Its cells, column by column.
    ///
    /// # Errors
    /// Something else than cells; more cells than bytes.
    pub fn cells(&self) -> Result<impl Iterator<Item = Result<Matrix<'a>>>> {
        if self.class != class::CELL {
            return Err(self.other("cells"));
        }
        let (count, mut content) = (self.count()?, self.content);
        if count > content.left() / TAG {
            let problem = format!("damaged: {count} cells in {} bytes", content.left());
            return Err(content.origin.damaged(problem));
        }
        Ok((0..count).map(move |_| Matrix::next(&mut content)))
    }

    /// Its structs, column by column. An empty array of numbers, which is what programs write where there are none, holds none.
    ///
    /// # Errors
    /// Something else; structs whose names or number are damaged.
    pub fn structs(&self) -> Result<Structs<'a>> {
        match self.class {
            class::STRUCT | class::OBJECT => Structs::read(self.content, self.count()?, self.class == class::OBJECT),
            class::DOUBLE..=class::LAST_NUMBER | class::CELL if self.is_empty() => Ok(Structs::none(self.content)),
            _ => Err(self.other("structs")),
        }
    }

    /// The only struct that it holds.
    ///
    /// # Errors
    /// As [`Matrix::structs`]; none, or several.
    pub fn one_struct(&self) -> Result<Struct<'a>> {
        let mut structs = self.structs()?;
        match (structs.len(), structs.next()) {
            (1, Some(only)) => only,
            _ => Err(self.other("one struct")),
        }
    }

    fn other(&self, expected: &str) -> Error {
        let name = match self.class {
            class::CELL => "cells",
            class::STRUCT => "structs",
            class::OBJECT => "objects",
            class::TEXT => "text",
            class::SPARSE => "a sparse matrix",
            class::DOUBLE..=class::LAST_NUMBER if self.complex => "complex numbers",
            class::DOUBLE..=class::LAST_NUMBER => "numbers",
            _ => "something that only MATLAB knows",
        };
        let dims = self.dims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        let problem = format!("expected {expected}, got {name}, {dims}");
        Error::file(self.content.origin.path, problem, "take the file as it was published")
    }
}

impl<'a> Struct<'a> {
    /// The field of this name.
    ///
    /// # Errors
    /// No field of this name; a damaged one.
    pub fn field(&self, name: &str) -> Result<Matrix<'a>> {
        Matrix::next(&mut self.starting_at(name)?)
    }
}
