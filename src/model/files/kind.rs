//! What a file of weights is.

use crate::Result;
use crate::checkpoint::Checkpoint;
use crate::model::ModelFile;
use crate::swin::names;
use crate::swin::names::Family;

/// The kinds of files that models are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// This crate's adapter or full export: [`ModelFile`].
    Model,
    /// The released TADFormer's or MTLoRA's: [`ReleasedFile`](crate::model::ReleasedFile).
    Released,
    /// A Swin alone, of any library: [`BackboneFile`](super::BackboneFile).
    Backbone,
}

impl FileKind {
    /// Tells the kinds apart by metadata and names.
    ///
    /// ```no_run
    /// use tadformer::{checkpoint::Checkpoint, model::FileKind};
    /// assert_eq!(FileKind::of(&Checkpoint::open("adapter.safetensors")?)?, FileKind::Model);
    /// # Ok::<(), tadformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// A file of another network, which is named; one that can no longer be read.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        if checkpoint.metadata(ModelFile::KEY).is_some() {
            return Ok(Self::Model);
        }
        let (family, _, _) = names::canonical(checkpoint.clone())?;
        Ok(if family == Family::Released { Self::Released } else { Self::Backbone })
    }
}
