//! What a label's file tells of its task, whichever task that is.

use super::listing::is_array;
use crate::TaskKind;
use crate::data::PIXEL_LIMIT;
use crate::data::npy::{NpyMap, read_npy};
use crate::data::stored::Stored;
use png::ColorType;
use std::path::Path;

/// A label's file as it is stored.
pub(super) enum Looked {
    Png(Stored),
    Array(NpyMap),
}

impl Looked {
    /// Of a file that can be read.
    pub fn at(path: &Path) -> Option<Self> {
        match is_array(path) {
            true => read_npy(path).ok().map(Self::Array),
            false => Stored::read(path, PIXEL_LIMIT).ok().map(Self::Png),
        }
    }

    /// The kind of task that such files are most often of.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Png(file) => match (file.colour, file.bits) {
                (ColorType::Rgb, _) => TaskKind::Normals,
                (ColorType::Grayscale, 16) => TaskKind::Depth,
                (ColorType::Grayscale, _) if file.bytes.iter().all(|v| [0, 128, 255].contains(v)) => TaskKind::Sal,
                _ => TaskKind::Semseg,
            },
            Self::Array(map) => match map.channels {
                3 => TaskKind::Normals,
                _ if map.values.iter().any(|v| v.fract() != 0.0) => TaskKind::Depth,
                _ if map.values.iter().all(|v| [0.0, 1.0, 255.0].contains(v)) => TaskKind::Sal,
                _ => TaskKind::Semseg,
            },
        }
    }

    /// The largest class but 255; none where it holds no classes.
    pub fn highest(&self) -> Option<u8> {
        match self {
            Self::Png(file) if file.is_of_classes() => file.bytes.iter().copied().filter(|v| *v != 255).max(),
            Self::Array(map) if map.channels == 1 => {
                let classes = map.values.iter().filter(|v| (0.0..255.0).contains(*v));
                classes.map(|v| *v as u8).max()
            }
            _ => None,
        }
    }

    /// Red, green and blue by class; empty where it has none.
    pub fn palette(&self) -> &[[u8; 3]] {
        match self {
            Self::Png(file) => &file.palette,
            Self::Array(_) => &[],
        }
    }
}
