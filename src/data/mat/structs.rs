//! Structs of a MATLAB 5 file, and their fields by name.

use super::element::{Elements, TAG};
use crate::{Error, Result};
use std::sync::Arc;

/// More fields than anybody's struct has.
const MOST_FIELDS: usize = 1024;

/// An array of structs with the same fields, one by one.
#[derive(Clone, Debug)]
pub struct Structs<'a> {
    names: Arc<[&'a [u8]]>,
    left: usize,
    content: Elements<'a>,
}

/// One struct.
#[derive(Clone, Debug)]
pub struct Struct<'a> {
    names: Arc<[&'a [u8]]>,
    content: Elements<'a>,
}

impl<'a> Structs<'a> {
    pub(super) fn none(content: Elements<'a>) -> Self {
        Self { names: Arc::new([]), left: 0, content }
    }

    /// So many structs, whose names and values are `content`; an object says its class's name before.
    pub(super) fn read(mut content: Elements<'a>, left: usize, is_object: bool) -> Result<Self> {
        let origin = content.origin;
        let damaged = |problem: &str| origin.damaged(format!("damaged: {problem}"));
        if is_object {
            content.next()?;
        }
        let slot = content.next()?;
        let length = slot.only(origin.order).ok_or_else(|| damaged("structs without the length of their names"))?;
        let names = content.next()?.bytes;
        // Each name in a slot of its own, ended by a 0.
        let names: Vec<&[u8]> = match length {
            0 if names.is_empty() => Vec::new(),
            0 => return Err(damaged("names of fields without a length")),
            slot if names.len() / slot > MOST_FIELDS => return Err(damaged("a struct of over 1024 fields")),
            slot => names.chunks_exact(slot).map(|name| name.split(|byte| *byte == 0).next().unwrap_or(name)).collect(),
        };
        // Each field of each struct has a tag; structs without a field would have nothing and could be any number.
        let fields = left.checked_mul(names.len());
        if fields.is_none_or(|fields| fields > content.left() / TAG) || (names.is_empty() && left > 1) {
            return Err(damaged(&format!("{left} structs of {} fields in {} bytes", names.len(), content.left())));
        }
        Ok(Self { names: names.into(), left, content })
    }

    /// How many there are still.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Whether there are none any more.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Structs<'a> {
    type Item = Result<Struct<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let next = Struct { names: self.names.clone(), content: self.content };
        match self.names.iter().try_for_each(|_| self.content.next().map(drop)) {
            Ok(()) => Some(Ok(next)),
            Err(e) => {
                self.left = 0;
                Some(Err(e))
            }
        }
    }
}

impl<'a> Struct<'a> {
    /// The elements from the field of this name on.
    pub(super) fn starting_at(&self, name: &str) -> Result<Elements<'a>> {
        let mut content = self.content;
        let Some(at) = self.names.iter().position(|other| *other == name.as_bytes()) else {
            let names: Vec<_> = self.names.iter().take(20).map(|name| String::from_utf8_lossy(name)).collect();
            let problem = format!("a struct without the field `{name}`; it has {}", names.join(", "));
            return Err(Error::file(content.origin.path, problem, "take the file as it was published"));
        };
        for _ in 0..at {
            content.next()?;
        }
        Ok(content)
    }
}
