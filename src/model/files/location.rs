//! What a model is named by: a path, or its id on the Hugging Face hub.

use crate::checkpoint::Checkpoint;
use std::path::Path;

/// A path, or an id.
#[derive(Debug, PartialEq)]
pub(in crate::model) enum Location<'a> {
    /// A file or folder, which need not exist.
    Path(&'a Path),
    /// `OWNER/NAME`, with `@REVISION` where it matters.
    Id(&'a str),
}

impl<'a> Location<'a> {
    /// What exists is a path; so is what reads like one, since a mistyped path is nothing to ask the network for.
    pub(in crate::model) fn of(source: &'a Path) -> Self {
        match source.to_str() {
            Some(id) if !source.exists() && !reads_like_a_path(source) => Self::Id(id),
            _ => Self::Path(source),
        }
    }
}

/// What an id is worth without the hub.
#[cfg(not(feature = "hub"))]
pub(in crate::model) fn no_hub<T>(id: &str) -> crate::Result<T> {
    let cure = "check the path, or build with the feature `hub` to give a model's id";
    Err(crate::Error::config("model", "a path that exists", id, cure))
}

/// Absolute, from a dot downwards, of more than two parts, or with the ending of a checkpoint: no id is like that.
fn reads_like_a_path(source: &Path) -> bool {
    let text = source.to_string_lossy();
    let name = text.split('@').next().unwrap_or_default();
    source.is_absolute()
        || name.starts_with('.')
        || name.matches(['/', '\\']).count() > 1
        || Checkpoint::is_named_like_one(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_paths_are_no_ids() {
        for path in ["/a/b", "./a", "../a", "runs/finetune/adapter", "runs/adapter.safetensors", "a.pth", "src"] {
            assert_eq!(Location::of(Path::new(path)), Location::Path(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn anything_else_is_an_id() {
        for id in ["microsoft/swin-tiny-patch4-window7-224", "timm/swin.ms_in1k", "a/b@refs/pr/1", "gpt2"] {
            assert_eq!(Location::of(Path::new(id)), Location::Id(id));
        }
    }
}
